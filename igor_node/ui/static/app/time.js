/** Times and durations as people read them. Everything from the API is RFC 3339 in UTC; hover shows exactly that. */

const PARTS = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];

/** `1h 04m`, `12.3 s`, `850 ms`: two units at most. @param {number|null|undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return '–';
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const first = PARTS.findIndex(([size]) => whole >= size);
  const [size, unit] = PARTS[first];
  const rest = PARTS[first + 1];
  const head = `${Math.floor(whole / size)}${unit}`;
  return rest ? `${head} ${String(Math.floor((whole % size) / rest[0])).padStart(2, '0')}${rest[1]}` : head;
}

/** Seconds between two RFC 3339 texts; to now if the second is missing. */
export function between(start, end) {
  if (!start) return null;
  return ((end ? Date.parse(end) : Date.now()) - Date.parse(start)) / 1000;
}

/** `in 12 s`, `3m 10s ago`. */
export function relative(text, now = Date.now()) {
  if (!text) return '–';
  const seconds = (Date.parse(text) - now) / 1000;
  return seconds >= 0 ? `in ${duration(seconds)}` : `${duration(-seconds)} ago`;
}

const pad = (number) => String(number).padStart(2, '0');

/** The clock as chosen: utc, local or relative. */
export function moment(text, clock) {
  if (!text) return '–';
  if (clock === 'relative') return relative(text);
  const date = new Date(text);
  if (clock === 'local') {
    return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  }
  return `${text.slice(0, 10)} ${text.slice(11, 19)}`;
}

/** `12.3 MiB`. @param {number|null|undefined} bytes */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}
