/** Home: "is everything all right?" One sentence, what needs a person, the hours around now, what runs. */

import { html, nothing, svg } from '../vendor/lit.js';
import { get } from '../app/api.js';
import { jobLink, link, runLink } from '../app/route.js';
import { between, duration, relative } from '../app/time.js';
import { Live, empty, icon, state, stateClass, when } from './shared.js';

const HOUR_MS = 3_600_000;
const SPAN_H = 12;
const LIMIT = 1000; // of the lists behind the strip: where more was to be had the strip shows a shorter time instead
const BUCKETS = 96;
const QUEUED_LONG_S = 600;
const BAD = new Set(['failed', 'timed_out', 'lost', 'missed']);

class Home extends Live {
  static properties = { ...Live.properties, cluster: {} };

  async load() {
    const since = new Date(Date.now() - SPAN_H * HOUR_MS).toISOString();
    const [jobs, recent, running, queued, upcoming] = await Promise.all([
      get('/v1/jobs', { limit: 1000 }), get('/v1/runs', { limit: LIMIT, since }), get('/v1/runs', { state: 'running', limit: 100 }),
      get('/v1/runs', { state: 'queued', limit: 100 }), get('/v1/upcoming', { hours: SPAN_H, limit: LIMIT }),
    ]);
    return { jobs: jobs.items, recent: recent.items, running: running.items, queued: queued.items, upcoming: upcoming.items };
  }

  /** What needs a person, worst first: [state, text, link, what to do]. */
  attention() {
    const rows = [];
    for (const node of this.cluster?.nodes || []) {
      if (node.state === 'lost' || node.state === 'silent') rows.push([node.state, `Node ${node.name} is ${node.state}`, link(['nodes'], { node: node.name }), 'Look at the node']);
    }
    for (const job of this.data.jobs) {
      const runs = (job.last_runs || []).filter((run) => !['scheduled', 'queued', 'running', 'skipped'].includes(run.state));
      let row = 0;
      while (row < runs.length && BAD.has(runs[runs.length - 1 - row].state)) row += 1;
      if (row) rows.push([runs[runs.length - 1].state, `${job.id} failed ${row === 1 ? 'last time' : `${row} times in a row`}`, link(['run', runs[runs.length - 1].id]), 'Read the log']);
    }
    for (const run of this.data.queued) {
      if (between(run.created_at) > QUEUED_LONG_S) rows.push(['queued', `${run.job} has been queued for ${duration(between(run.created_at))}: ${run.reason || ''}`, runLink(run.id), 'See why']);
    }
    return rows;
  }

  sentence(needs) {
    const jobs = this.data.jobs.length;
    if (!jobs) return html`<p class="sentence">${icon('info')}No jobs yet.</p>`;
    const text = `${jobs} job${jobs === 1 ? '' : 's'}, ${this.data.running.length} run${this.data.running.length === 1 ? '' : 's'} going`;
    return needs ? html`<p class="sentence">${icon('circle-alert')}${text}; ${needs} thing${needs === 1 ? ' needs' : 's need'} you.</p>`
      : html`<p class="sentence">${icon('circle-check')}All right: ${text}, nothing needs you.</p>`;
  }

  strip() {
    const now = Date.now();
    const { recent, upcoming } = this.data;
    const cut = (list, name) => (list.length < LIMIT ? SPAN_H * HOUR_MS : Math.abs(Date.parse(list.at(-1)[name]) - now));
    const span = Math.max(60_000, Math.min(SPAN_H * HOUR_MS, cut(recent, 'created_at'), cut(upcoming, 'scheduled_time')));
    const wide = 960 / BUCKETS;
    const size = (2 * span) / BUCKETS;
    const start = now - span;
    const buckets = Array.from({ length: BUCKETS }, () => ({}));
    const put = (text, kind) => {
      const at = Math.floor((Date.parse(text) - start) / size);
      if (at >= 0 && at < BUCKETS) buckets[at][kind] = (buckets[at][kind] || 0) + 1;
    };
    for (const run of this.data.recent) if (run.state !== 'scheduled') put(run.scheduled_time || run.created_at, stateClass(run.state));
    for (const fire of this.data.upcoming) put(fire.scheduled_time, 'next');
    const most = Math.max(1, ...buckets.map((bucket) => Object.values(bucket).reduce((a, b) => a + b, 0)));
    const bars = buckets.flatMap((bucket, at) => {
      let top = 52;
      return Object.entries(bucket).map(([kind, number]) => {
        const high = (48 * number) / most;
        top -= high;
        return svg`<rect class=${kind} x=${at * wide + 0.5} y=${top} width=${wide - 1.5} height=${high}><title>${number} ${kind === 'next' ? 'expected' : 'runs'}, ${new Date(start + at * size).toISOString().slice(11, 19)} UTC</title></rect>`;
      });
    });
    const words = duration(span / 1000);
    return html`<a href=${link(['runs'])} class="card tile" aria-label="Runs of the last ${words} and fires of the next ${words}">
      <svg class="strip" viewBox="0 0 960 70" preserveAspectRatio="none" role="img" aria-hidden="true">${bars}<line x1="480" x2="480" y1="0" y2="54"></line></svg>
      <span class="quiet">The last ${words} by state, the next ${words} as expected (dashed); a bar is ${duration(size / 1000)}, the highest ${most}</span></a>`;
  }

  tiles() {
    const today = new Date().toISOString().slice(0, 10);
    const fires = this.data.recent.filter((run) => run.trigger === 'schedule' && run.scheduled_time?.startsWith(today));
    const late = fires.map((run) => run.lateness_s).filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
    const p99 = late.length ? late[Math.min(late.length - 1, Math.floor(late.length * 0.99))] : null;
    const number = (test) => fires.filter(test).length;
    return html`<div class="tiles">
      <a class="card tile" href=${link(['runs'])}><b>${duration(p99)}</b>lateness p99 of today's last ${late.length} runs</a>
      <a class="card tile" href=${link(['runs'], { state: 'succeeded' })}><b>${number((run) => run.state === 'succeeded')}</b>succeeded today</a>
      <a class="card tile" href=${link(['runs'], { state: 'failed' })}><b>${number((run) => BAD.has(run.state))}</b>failed or missed today</a>
      <a class="card tile" href=${link(['runs'], { state: 'skipped' })}><b>${number((run) => run.state === 'skipped')}</b>skipped today</a>
      <a class="card tile" href=${link(['nodes'])}><b>${(this.cluster?.nodes || []).filter((node) => node.state === 'up').length}</b>nodes up</a>
    </div>`;
  }

  /** The next fire of each job. */
  next() {
    const seen = new Set();
    return this.data.upcoming.filter((fire) => Date.parse(fire.scheduled_time) > Date.now() && !seen.has(fire.job) && seen.add(fire.job));
  }

  view() {
    const needs = this.attention();
    if (!this.data.jobs.length) return html`<h1>Home</h1>${this.sentence(0)}${empty('Push a folder of definitions:', 'igor push jobdefs/')}`;
    return html`<h1 class="visually-hidden">Home</h1>${this.sentence(needs.length)}
      ${needs.length ? html`<table class="stack" aria-label="What needs you"><tbody>${needs.slice(0, 12).map(([kind, text, to, what]) => html`<tr>
        <td class="nowrap">${state(kind)}</td><td>${text}</td><td class="nowrap"><a class="main" href=${to}>${what}</a></td></tr>`)}</tbody></table>
        ${needs.length > 12 ? html`<p class="quiet">and ${needs.length - 12} more</p>` : nothing}` : nothing}
      ${this.tiles()}
      ${this.strip()}
      <h2>Running now</h2>
      ${this.data.running.length ? html`<table class="stack"><thead><tr><th>Job</th><th>Since</th><th class="number">For</th><th>Node</th><th>Run</th></tr></thead><tbody>
        ${this.data.running.map((run) => html`<tr><td data-name="Job"><a href=${jobLink(run.job)}>${run.job}</a></td><td data-name="Since">${when(run.started_at)}</td>
          <td class="number" data-name="For">${duration(between(run.started_at))}</td><td data-name="Node">${run.stages?.[0]?.attempts?.at(-1)?.node || '–'}</td>
          <td data-name="Run"><a class="main mono" href=${runLink(run.id)}>${run.id}</a></td></tr>`)}</tbody></table>` : html`<p class="quiet">Nothing runs at this moment.</p>`}
      <h2>Next</h2>
      ${this.data.upcoming.length ? html`<table class="stack"><tbody>${this.next().slice(0, 8).map((fire) => html`<tr><td class="nowrap">${when(fire.scheduled_time)}</td>
        <td class="nowrap">${relative(fire.scheduled_time)}</td><td><a href=${jobLink(fire.job)}>${fire.job}</a> <span class="quiet">${fire.note || ''}</span></td></tr>`)}</tbody></table>` : html`<p class="quiet">No fire in the next ${SPAN_H} hours.</p>`}`;
  }
}

customElements.define('igor-home', Home);
