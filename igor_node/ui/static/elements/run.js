/** One run: its state and why, times, attempts and tries, and the log while it is written. */

import { html, nothing } from '../vendor/lit.js';
import { get, post } from '../app/api.js';
import { jobLink } from '../app/route.js';
import { between, duration, size } from '../app/time.js';
import { confirm, runNow } from './dialogs.js';
import { ENDS, Live, copy, icon, state, toast, when } from './shared.js';
import './log.js';

class Run extends Live {
  static properties = { ...Live.properties, run: {}, query: {} };

  willUpdate(changed) {
    if (changed.has('run') && changed.get('run') !== undefined) {
      this.data = null;
      this.refresh();
    }
  }

  concerns(event) {
    return !event.run || event.run === this.data?.run.id;
  }

  async load() {
    const run = await get(`/v1/runs/${encodeURIComponent(this.run)}`);
    const why = await get(`/v1/runs/${run.id}/why`).catch(() => null);
    return { run, why };
  }

  cancel(run) {
    confirm({
      title: `Cancel run ${run.id}?`,
      text: `One run of ${run.job}. Its command gets TERM, and KILL after its grace.`,
      word: 'Cancel the run',
      danger: true,
      command: `igor cancel ${run.id}`,
      action: async (reason) => {
        await post(`/v1/runs/${run.id}/cancel`, { reason });
        toast('Cancelling');
        this.refresh();
      },
    });
  }

  stages(run) {
    return run.stages.map((stage) => html`<section class="card"><div class="head"><strong>${stage.name}</strong>${state(stage.state)}</div>
      ${stage.reason && !stage.attempts.length ? html`<p class="quiet">${stage.reason}</p>` : nothing}
      ${stage.attempts.map((attempt) => html`<p>Attempt ${attempt.n} on <strong>${attempt.node}</strong> ${state(attempt.state)}${attempt.reason ? html` <span class="quiet">${attempt.reason}</span>` : nothing}</p>
        ${attempt.tries.length ? html`<table><thead><tr><th>Try</th><th>State</th><th class="number">Took</th><th class="number">Exit</th><th class="number">Peak</th><th class="number">CPU</th></tr></thead><tbody>
          ${attempt.tries.map((one) => html`<tr><td>${one.n}</td><td>${state(one.state)}</td><td class="number">${duration(between(one.started_at, one.ended_at))}</td>
            <td class="number">${one.signal ? `signal ${one.signal}` : one.exit_code ?? '–'}</td><td class="number">${size(one.max_rss_bytes)}</td><td class="number">${duration(one.cpu_s)}</td></tr>`)}</tbody></table>` : nothing}`)}
      ${stage.attempts.length ? nothing : html`<p class="quiet">Not placed on a node yet.</p>`}</section>`);
  }

  reasons(why) {
    const lines = why?.reasons || why?.lines || (why?.reason ? [why.reason] : []);
    if (!lines.length) return nothing;
    return html`<section class="card"><strong>Why</strong><ul>${lines.map((line) => html`<li>${typeof line === 'string' ? line : line.text || line.reason || JSON.stringify(line)}</li>`)}</ul></section>`;
  }

  view() {
    const { run, why } = this.data;
    const params = Object.entries(run.params || {});
    return html`<div class="head"><div><h1><a href=${jobLink(run.job)}>${run.job}</a></h1><p>${state(run.state)} <span>${run.reason || ''}</span></p></div>
      <div class="actions">${ENDS.has(run.state) ? nothing : html`<button class="danger" @click=${() => this.cancel(run)}>${icon('square')}Cancel</button>`}
        <button @click=${() => runNow(run.job)}>${icon('play')}Run again</button>
        <button @click=${() => copy(`igor show ${run.id}`)}>${icon('copy')}as igor</button></div></div>
      <div class="two"><div>
        <dl class="facts card"><dt>Run</dt><dd class="mono">${run.id}</dd><dt>Trigger</dt><dd>${run.trigger}</dd><dt>Version</dt><dd>${run.version}</dd>
          ${run.scheduled_time ? html`<dt>Scheduled</dt><dd>${when(run.scheduled_time)}</dd>` : nothing}
          <dt>Created</dt><dd>${when(run.created_at)}</dd><dt>Started</dt><dd>${when(run.started_at)}${run.lateness_s !== null && run.lateness_s !== undefined ? html` <span class="quiet">${duration(run.lateness_s)} late</span>` : nothing}</dd>
          <dt>Ended</dt><dd>${when(run.ended_at)}</dd>${run.started_at ? html`<dt>Took</dt><dd>${duration(between(run.started_at, run.ended_at))}</dd>` : nothing}
          ${params.map(([name, value]) => html`<dt>param ${name}</dt><dd class="mono">${value}</dd>`)}</dl>
        <h2>Stages</h2>${this.stages(run)}${this.reasons(why)}
      </div><div><igor-log .run=${run} .query=${this.query}></igor-log></div></div>`;
  }
}

customElements.define('igor-run', Run);
