/** One job: its schedule in words, the next fires, its runs, and the definition as pushed. */

import { html, nothing } from '../vendor/lit.js';
import { get, jobPath } from '../app/api.js';
import { link, runLink, setQuery } from '../app/route.js';
import { between, duration, relative } from '../app/time.js';
import { runNow } from './dialogs.js';
import { pauseOrResume } from './jobs.js';
import { Live, empty, icon, state, when } from './shared.js';

const TABS = ['runs', 'definition'];

class Job extends Live {
  static properties = { ...Live.properties, job: {}, query: {} };

  willUpdate(changed) {
    if (changed.has('job') && changed.get('job') !== undefined) {
      this.data = null;
      this.refresh();
    }
  }

  concerns(event) {
    return !event.job || event.job === this.data?.job.id || event.job === this.job;
  }

  async load() {
    const job = await get(jobPath(this.job));
    const runs = await get('/v1/runs', { job: job.id, limit: 50 });
    return { job, runs: runs.items };
  }

  runs(runs) {
    if (!runs.length) return empty('This job has not run yet.', `igor run ${this.data.job.id} --wait`);
    return html`<table class="stack"><thead><tr><th>State</th><th>Scheduled or created</th><th class="number">Late</th><th class="number">Took</th><th>Node</th><th>Reason</th><th>Run</th></tr></thead><tbody>
      ${runs.map((run) => html`<tr><td>${state(run.state)}</td><td data-name="Time" class="nowrap">${when(run.scheduled_time || run.created_at)}</td>
        <td class="number" data-name="Late">${duration(run.lateness_s)}</td><td class="number" data-name="Took">${run.started_at ? duration(between(run.started_at, run.ended_at)) : '–'}</td>
        <td data-name="Node">${run.stages?.[0]?.attempts?.at(-1)?.node || '–'}</td><td class="reason" data-name="Reason">${run.reason || ''}</td>
        <td><a class="main mono" href=${runLink(run.id)}>${run.id}</a></td></tr>`)}</tbody></table>
      <p><a href=${link(['runs'], { job: this.data.job.id })}>All runs of this job</a></p>`;
  }

  view() {
    const { job, runs } = this.data;
    const tab = TABS.includes(this.query.tab) ? this.query.tab : 'runs';
    return html`<div class="head"><div><h1>${job.id}</h1>
        ${job.description ? html`<p class="quiet">${job.description}</p>` : nothing}</div>
        <div class="actions"><button class="primary" @click=${() => runNow(job.id)}>${icon('play')}Run now</button>
          <button @click=${() => pauseOrResume(job, () => this.refresh())}>${icon(job.paused ? 'play' : 'pause')}${job.paused ? 'Resume' : 'Pause'}</button></div></div>
      ${job.paused ? html`<div class="banner">${icon('circle-pause')}<span>Paused${job.pause_reason ? `: ${job.pause_reason}` : ''}${job.paused_until ? html`, until ${when(job.paused_until)}` : nothing}. Its fires are recorded as skipped.</span></div>` : nothing}
      <dl class="facts card">
        <dt>Schedule</dt><dd>${job.schedule.join(', ') || 'on demand only'}</dd>
        ${job.paused || !job.next_fires?.length ? nothing : html`<dt>Next fires</dt><dd>${job.next_fires.slice(0, 3).map((fire, at) => html`${at ? ', ' : ''}${when(fire)} <span class="quiet">(${relative(fire)})</span>`)}</dd>`}
        <dt>Overlap</dt><dd>${job.overlap || 'queue'}</dd>
        ${job.owner ? html`<dt>Owner</dt><dd>${job.owner}</dd>` : nothing}
        ${job.tags?.length ? html`<dt>Tags</dt><dd>${job.tags.map((tag) => html`<a href=${link(['jobs'], { q: `tag:${tag}` })}>${tag}</a> `)}</dd>` : nothing}
        <dt>Version</dt><dd>${job.version}</dd>
      </dl>
      <div class="toolbar" role="tablist">${TABS.map((name) => html`<button role="tab" aria-selected=${tab === name} class=${tab === name ? 'primary' : ''} @click=${() => setQuery({ tab: name })}>${name === 'runs' ? 'Runs' : 'Definition'}</button>`)}</div>
      ${tab === 'runs' ? this.runs(runs) : html`<pre class="card" tabindex="0">${job.source_text || JSON.stringify(job.definition ?? job, null, 2)}</pre>`}`;
  }
}

customElements.define('igor-job', Job);
