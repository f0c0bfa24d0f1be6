/** What several elements draw alike: states, icons, links, copy buttons, confirmations, toasts. */

import { html, nothing, LitElement } from '../vendor/lit.js';
import { between, duration, moment, relative } from '../app/time.js';
import { listen } from '../app/live.js';

const ICONS = new URL('../vendor/icons.svg', import.meta.url).pathname;

export const icon = (name) => html`<svg class="icon" aria-hidden="true"><use href="${ICONS}#${name}"></use></svg>`;

/** state → [class, icon, word]: the same for runs, stages, attempts and tries. */
const STATES = {
  scheduled: ['scheduled', 'clock', 'scheduled'],
  queued: ['queued', 'hourglass', 'queued'],
  waiting: ['warn', 'user', 'waiting'],
  assigned: ['queued', 'hourglass', 'handed out'],
  held: ['queued', 'hourglass', 'held'],
  running: ['run', 'loader', 'running'],
  succeeded: ['ok', 'circle-check', 'succeeded'],
  failed: ['bad', 'circle-x', 'failed'],
  timed_out: ['bad', 'timer-off', 'timed out'],
  cancelled: ['skip', 'ban', 'cancelled'],
  lost: ['bad', 'skull', 'lost'],
  skipped: ['skip', 'skip-forward', 'skipped'],
  missed: ['bad', 'diamond', 'missed'],
  not_run: ['skip', 'circle-slash', 'not run'],
  revoked: ['skip', 'circle-slash', 'revoked'],
  up: ['ok', 'circle-check', 'up'],
  silent: ['warn', 'circle-alert', 'silent'],
  draining: ['warn', 'circle-dashed', 'draining'],
};

export const stateClass = (state) => (STATES[state] || ['wait'])[0];
export const ENDS = new Set(['succeeded', 'failed', 'timed_out', 'cancelled', 'lost', 'skipped', 'missed']);

export function state(name) {
  const [kind, picture, word] = STATES[name] || ['', 'circle-dashed', name];
  return html`<span class="state ${kind}" data-state=${name}>${icon(picture)}${word}</span>`;
}

/** A time as chosen in the top bar; hover gives exact UTC. */
export function when(text) {
  return text ? html`<time datetime=${text} title="${text} (${relative(text)})">${moment(text, preference('clock', 'utc'))}</time>` : html`<span class="quiet">–</span>`;
}

export function preference(name, otherwise) {
  try {
    return localStorage.getItem(`igor.${name}`) || otherwise;
  } catch {
    return otherwise; // storage may be forbidden; the page works without
  }
}

export function prefer(name, value) {
  try {
    localStorage.setItem(`igor.${name}`, value);
  } catch {
    return; // storage may be forbidden; the choice lasts for this page
  }
}

export function toast(text, bad = false) {
  window.dispatchEvent(new CustomEvent('igor-toast', { detail: { text, bad } }));
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast('Copied');
  } catch {
    toast(`Could not copy: ${text}`, true);
  }
}

/** Teaches what to do where there is nothing yet. */
export const empty = (text, command = '') => html`<div class="empty"><p>${text}</p>${command ? html`<pre>${command}</pre>` : nothing}</div>`;

export const problem = (error) => html`<div class="banner bad" role="alert">${icon('triangle-alert')}<span>${error.message}${error.hint ? ` – ${error.hint}` : ''}</span></div>`;

/**
 * An element that loads data and loads it again when an event concerns it. Subclasses give `load()` (async, sets this.data), `concerns(event)` and
 * `view()`. Reloads are gathered: at most one a second, never two at once.
 */
export class Live extends LitElement {
  static properties = { data: { state: true }, error: { state: true } };

  createRenderRoot() {
    return this;
  }

  connectedCallback() {
    super.connectedCallback();
    this.data = null;
    this.error = null;
    this.refresh();
    this.stop = listen((event) => this.concerns(event) && this.soon());
    this.clock = setInterval(() => this.requestUpdate(), 1000);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.stop();
    clearInterval(this.clock);
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  concerns() {
    return true;
  }

  soon() {
    if (this.timer === undefined) this.timer = setTimeout(() => { this.timer = undefined; this.refresh(); }, 1000);
  }

  async refresh() {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      this.data = await this.load();
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.loading = false;
    if (this.again) {
      this.again = false;
      this.soon();
    }
  }

  render() {
    return html`${this.error ? problem(this.error) : nothing}${this.data ? this.view() : this.error ? nothing : html`<p class="quiet" role="status">Loading…</p>`}`;
  }
}

/** Bars of the last runs: height is duration, colour is state. @param {Array<{id: string, state: string, started_at: string|null, ended_at: string|null}>} runs */
export function spark(runs) {
  if (!runs || !runs.length) return html`<span class="quiet">–</span>`;
  const took = runs.map((run) => (run.started_at ? between(run.started_at, run.ended_at) : 0));
  const longest = Math.max(...took, 0.001);
  return html`<span class="spark">${runs.map((run, at) => html`<a class=${stateClass(run.state)} href="#/run/${run.id}" title="${run.state}, ${duration(took[at])}"
    aria-label="run ${run.state}" .style=${`height:${Math.round(4 + (20 * took[at]) / longest)}px`}></a>`)}</span>`;
}
