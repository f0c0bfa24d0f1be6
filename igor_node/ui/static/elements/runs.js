/** Runs: filtered and paged by the server; new ones announce themselves in a bar instead of moving the list. */

import { html, nothing } from '../vendor/lit.js';
import { get } from '../app/api.js';
import { jobLink, runLink, setQuery } from '../app/route.js';
import { between, duration } from '../app/time.js';
import { Live, empty, icon, state, when } from './shared.js';

const PAGE = 50;
const STATES = ['scheduled', 'queued', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'lost', 'skipped', 'missed'];

class Runs extends Live {
  static properties = { ...Live.properties, query: {}, fresh: { state: true } };

  willUpdate(changed) {
    const before = changed.get('query');
    if (before && (before.job !== this.query.job || before.state !== this.query.state)) {
      this.data = null;
      this.refresh();
    }
  }

  async load() {
    const page = await get('/v1/runs', { job: this.query.job, state: this.query.state, limit: PAGE });
    const shown = this.data?.items || [];
    if (!shown.length || window.scrollY < 80) {
      this.fresh = 0;
      return { items: page.items, next: page.next };
    }
    // Rows that are shown keep their place and get their new state; how many came is told in a bar.
    const now = new Map(page.items.map((run) => [run.id, run]));
    const known = new Set(shown.map((run) => run.id));
    this.fresh = page.items.filter((run) => !known.has(run.id)).length;
    return { items: shown.map((run) => now.get(run.id) || run), next: this.data.next };
  }

  async more() {
    const page = await get('/v1/runs', { job: this.query.job, state: this.query.state, limit: PAGE, cursor: this.data.next });
    this.data = { items: [...this.data.items, ...page.items], next: page.next };
  }

  top() {
    window.scrollTo(0, 0);
    this.data = null;
    this.refresh();
  }

  view() {
    const { items, next } = this.data;
    return html`<h1>Runs</h1>
      <div class="toolbar">
        <label for="job-filter">Job</label><input id="job-filter" type="search" placeholder="project/name" .value=${this.query.job || ''} @change=${(event) => setQuery({ job: event.target.value })} />
        <label for="state-filter">State</label><select id="state-filter" @change=${(event) => setQuery({ state: event.target.value })}>
          <option value="">any</option>${STATES.map((name) => html`<option value=${name} ?selected=${this.query.state === name}>${name.replace('_', ' ')}</option>`)}</select>
        ${this.fresh ? html`<button class="primary" @click=${this.top}>${icon('refresh-cw')}${this.fresh} new</button>` : nothing}
      </div>
      ${!items.length ? empty(this.query.job || this.query.state ? 'No run matches the filter.' : 'Nothing has run yet.', 'igor run JOB --wait') : html`
      <table class="stack"><thead><tr><th>State</th><th>Job</th><th>Scheduled or created</th><th>Trigger</th><th class="number">Late</th><th class="number">Took</th><th>Reason</th><th>Run</th></tr></thead><tbody>
        ${items.map((run) => html`<tr><td>${state(run.state)}</td><td data-name="Job"><a href=${jobLink(run.job)}>${run.job}</a></td><td class="nowrap" data-name="Time">${when(run.scheduled_time || run.created_at)}</td>
          <td data-name="Trigger">${run.trigger}</td><td class="number" data-name="Late">${duration(run.lateness_s)}</td>
          <td class="number" data-name="Took">${run.started_at ? duration(between(run.started_at, run.ended_at)) : '–'}</td><td class="reason" data-name="Reason">${run.reason || ''}</td>
          <td><a class="main mono" href=${runLink(run.id)}>${run.id}</a></td></tr>`)}</tbody></table>
      ${next ? html`<p><button @click=${this.more}>Show ${PAGE} more</button></p>` : nothing}`}`;
  }
}

customElements.define('igor-runs', Runs);
