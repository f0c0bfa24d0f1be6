/** Jobs: one row a job, with its schedule in words, the next fire, the last runs as bars. */

import { html, nothing } from '../vendor/lit.js';
import { get, jobPath, post } from '../app/api.js';
import { jobLink, setQuery } from '../app/route.js';
import { relative } from '../app/time.js';
import { confirm, runNow } from './dialogs.js';
import { ENDS, Live, empty, icon, spark, state, toast } from './shared.js';

/** The newest of the last runs that has ended. */
const lastEnded = (job) => job.last_runs.findLast((run) => ENDS.has(run.state));
const SHOWN = 300; // rows drawn at once; the filter narrows down the rest

/** Asks, then pauses or resumes. */
export function pauseOrResume(job, after) {
  const word = job.paused ? 'resume' : 'pause';
  confirm({
    title: `${job.paused ? 'Resume' : 'Pause'} ${job.id}?`,
    text: job.paused ? 'Its schedule goes on from now; fires that passed while it was paused stay skipped.'
      : 'No fire starts until it is resumed; each is recorded as skipped. A run that is going goes on.',
    word: job.paused ? 'Resume' : 'Pause',
    command: `igor job ${word} ${job.id}`,
    action: async (reason) => {
      await post(`${jobPath(job.id)}/${word}`, job.paused ? {} : { reason });
      toast(`${job.paused ? 'Resumed' : 'Paused'} ${job.id}`);
      after();
    },
  });
}

class Jobs extends Live {
  static properties = { ...Live.properties, query: {} };

  async load() {
    const items = [];
    let cursor = '';
    do {
      const page = await get('/v1/jobs', { limit: 1000, cursor });
      items.push(...page.items);
      cursor = page.next || '';
    } while (cursor && items.length < 100_000);
    return items;
  }

  matches(job) {
    const words = (this.query.q || '').toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => {
      if (word.startsWith('tag:')) return (job.tags || []).some((tag) => tag.toLowerCase() === word.slice(4));
      if (word.startsWith('owner:')) return (job.owner || '').toLowerCase() === word.slice(6);
      if (word === 'state:paused') return job.paused;
      if (word === 'state:failing') return ['failed', 'timed_out', 'lost', 'missed'].includes(lastEnded(job)?.state);
      return job.id.toLowerCase().includes(word) || (job.description || '').toLowerCase().includes(word);
    });
  }

  view() {
    const all = this.data;
    const jobs = all.filter((job) => this.matches(job));
    return html`<div class="head"><h1>Jobs</h1></div>
      <div class="toolbar"><label class="visually-hidden" for="filter">Filter</label>
        <input id="filter" type="search" placeholder="name, tag:…, owner:…, state:failing, state:paused" size="44" .value=${this.query.q || ''} @input=${(event) => setQuery({ q: event.target.value })} />
        <span class="quiet">${jobs.length} of ${all.length}</span></div>
      ${!all.length ? empty('No jobs yet. Push a folder of definitions:', 'igor push jobdefs/') : !jobs.length ? empty('No job matches the filter.') : html`
      <table class="stack"><thead><tr><th>Job</th><th>Schedule</th><th>Next</th><th>Last</th><th>Last runs</th><th><span class="visually-hidden">Actions</span></th></tr></thead><tbody>
      ${jobs.slice(0, SHOWN).map((job) => html`<tr>
        <td><a class="main" href=${jobLink(job.id)}>${job.id}</a>${job.description ? html`<br /><small class="quiet">${job.description}</small>` : nothing}</td>
        <td data-name="Schedule">${job.schedule.join(', ') || html`<span class="quiet">on demand</span>`}</td>
        <td class="nowrap" data-name="Next">${job.paused ? html`<span class="state warn">${icon('circle-pause')}paused</span>` : job.next_fire ? html`<time title=${job.next_fire} datetime=${job.next_fire}>${relative(job.next_fire)}</time>` : '–'}</td>
        <td data-name="Last">${lastEnded(job) ? state(lastEnded(job).state) : '–'}</td>
        <td data-name="Last runs">${spark(job.last_runs)}</td>
        <td><div class="actions"><button @click=${() => runNow(job.id)} aria-label="Run ${job.id} now">${icon('play')}Run</button>
          <button @click=${() => pauseOrResume(job, () => this.refresh())} aria-label="${job.paused ? 'Resume' : 'Pause'} ${job.id}">${icon(job.paused ? 'play' : 'pause')}${job.paused ? 'Resume' : 'Pause'}</button></div></td></tr>`)}
      </tbody></table>
      ${jobs.length > SHOWN ? html`<p class="quiet">The first ${SHOWN} are shown; narrow down with the filter.</p>` : nothing}`}`;
  }
}

customElements.define('igor-jobs', Jobs);
