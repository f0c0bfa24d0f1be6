/**
 * One stream of events for all tabs of a browser: the tab that holds the lock `igor-stream` reads /v1/events and tells the others by
 * BroadcastChannel. When that tab closes, the next one gets the lock. `age()` says for how long nothing was heard: the page shows it.
 */

const listeners = new Set();
const channel = new BroadcastChannel('igor-events');
const STALE_MS = 12_000; // the server sends a comment every few seconds; longer silence is shown
let heard = Date.now();
let connected = false;

function tell(message) {
  heard = Date.now();
  connected = message.connected;
  if (message.event) for (const listener of listeners) listener(message.event);
}

channel.onmessage = (message) => tell(message.data);

function publish(message) {
  tell(message);
  channel.postMessage(message);
}

function read(release) {
  const source = new EventSource('/v1/events');
  source.onopen = () => publish({ connected: true });
  source.onerror = () => {
    connected = false;
    channel.postMessage({ connected: false });
    if (source.readyState === EventSource.CLOSED) {
      source.close();
      setTimeout(() => read(release), 2000);
    }
  };
  source.onmessage = (message) => publish({ connected: true, event: JSON.parse(message.data) });
  source.addEventListener('beat', () => publish({ connected: true }));
}

/** Starts listening; one tab reads, the others follow. */
export function start() {
  if (navigator.locks) navigator.locks.request('igor-stream', () => new Promise((release) => read(release)));
  else read(() => {});
}

/** Calls `listener(event)` for each event. Returns the function that ends it. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Seconds since the stream was last heard, or 0 while it is alive. */
export function age() {
  const silent = Date.now() - heard;
  return connected && silent < STALE_MS ? 0 : Math.round(silent / 1000);
}
