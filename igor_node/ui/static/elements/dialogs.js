/** The dialogs of the page: run now with a form made of the job's params, and a confirmation that names the object and asks for a reason. */

import { html, nothing, LitElement } from '../vendor/lit.js';
import { asCurl, get, jobPath, post } from '../app/api.js';
import { copy, icon, preference, prefer, toast } from './shared.js';

/** Opens the form for a run on demand. @param {string} job `project/name` */
export const runNow = (job) => window.dispatchEvent(new CustomEvent('igor-run-now', { detail: job }));

/** Asks before `action(reason)`. @param {{title: string, text: string, word: string, danger?: boolean, command?: string, action: (reason: string) => Promise<any>}} what */
export const confirm = (what) => window.dispatchEvent(new CustomEvent('igor-confirm', { detail: what }));

const INPUT_TYPES = { integer: 'number', number: 'number', date: 'date', secret: 'password' };

class Dialogs extends LitElement {
  static properties = { job: { state: true }, question: { state: true }, refused: { state: true }, busy: { state: true } };

  createRenderRoot() {
    return this;
  }

  connectedCallback() {
    super.connectedCallback();
    window.addEventListener('igor-run-now', (event) => this.openRun(event.detail));
    window.addEventListener('igor-confirm', (event) => this.open('question', event.detail));
  }

  async openRun(name) {
    try {
      this.open('job', await get(jobPath(name)));
    } catch (error) {
      toast(error.message, true);
    }
  }

  async open(name, value) {
    this.refused = null;
    this[name] = value;
    await this.updateComplete;
    this.querySelector(name === 'job' ? '#run-now' : '#confirm').showModal();
  }

  /** Values of the form as text; a field left empty is not sent, so that the job's default counts. */
  values() {
    const params = {};
    for (const field of this.querySelectorAll('#run-now [name]')) {
      const value = field.type === 'checkbox' ? String(field.checked) : field.value;
      if (value !== '') params[field.name] = value;
    }
    return params;
  }

  async start(event) {
    event.preventDefault();
    this.busy = true;
    try {
      const params = this.values();
      prefer(`params.${this.job.id}`, JSON.stringify(params));
      const run = await post(`${jobPath(this.job.id)}/runs`, { params }, { 'Idempotency-Key': crypto.randomUUID?.() || String(Math.random()) });
      this.querySelector('#run-now').close();
      toast(`Started ${this.job.id}`);
      location.hash = `#/run/${run.id}`;
    } catch (error) {
      this.refused = error;
    }
    this.busy = false;
  }

  async act(event) {
    event.preventDefault();
    this.busy = true;
    try {
      await this.question.action(this.querySelector('#reason').value);
      this.querySelector('#confirm').close();
    } catch (error) {
      this.refused = error;
    }
    this.busy = false;
  }

  field([name, param]) {
    const last = JSON.parse(preference(`params.${this.job.id}`, '{}'))[name];
    const given = last ?? (typeof param.default === 'object' || String(param.default ?? '').includes('${{') ? '' : param.default ?? '');
    const hint = String(param.default ?? '');
    const id = `param-${name}`;
    const described = param.description ? html`<small class="quiet" id="${id}-help">${param.description}</small>` : nothing;
    if (param.choices?.length) {
      return html`<label for=${id}>${name}${param.required ? ' *' : ''}</label><select id=${id} name=${name}>${param.choices.map((choice) => html`<option ?selected=${String(choice) === String(given)}>${choice}</option>`)}</select>${described}`;
    }
    if (param.type === 'boolean') {
      return html`<label for=${id}>${name}</label><input id=${id} name=${name} type="checkbox" ?checked=${String(given) === 'true' || given === true} />${described}`;
    }
    return html`<label for=${id}>${name}${param.required ? ' *' : ''}</label>
      <input id=${id} name=${name} type=${INPUT_TYPES[param.type] || 'text'} .value=${String(given)} ?required=${param.required} placeholder=${hint}
        min=${param.min ?? nothing} max=${param.max ?? nothing} pattern=${param.pattern ?? nothing} step=${param.type === 'number' ? 'any' : nothing} />${described}`;
  }

  refusal() {
    if (!this.refused) return nothing;
    return html`<p class="error" role="alert">${this.refused.message}${this.refused.hint ? ` – ${this.refused.hint}` : ''}</p>
      ${this.refused.faults?.length ? html`<ul class="error">${this.refused.faults.map((fault) => html`<li>${fault}</li>`)}</ul>` : nothing}`;
  }

  render() {
    const job = this.job;
    const question = this.question;
    const params = Object.entries(job?.params || {});
    return html`
      <dialog id="run-now" aria-labelledby="run-now-title">${job ? html`<form @submit=${this.start}>
        <h2 id="run-now-title">Run ${job.id} now</h2>
        <p class="quiet">One run with version ${job.version}. Overlap policy: ${job.overlap || 'queue'}.</p>
        ${params.length ? params.map((entry) => this.field(entry)) : html`<p>This job takes no params.</p>`}
        ${this.refusal()}
        <div class="actions">
          <button type="button" @click=${() => copy(`igor run ${job.id}${Object.entries(this.values()).map(([k, v]) => ` -p ${k}='${v}'`).join('')}`)}>${icon('copy')}as igor</button>
          <button type="button" @click=${() => copy(asCurl('POST', `${jobPath(job.id)}/runs`, { params: this.values() }))}>${icon('copy')}as curl</button>
          <button type="button" @click=${() => this.querySelector('#run-now').close()}>Leave</button>
          <button class="primary" ?disabled=${this.busy}>${icon('play')}Run now</button>
        </div></form>` : nothing}</dialog>
      <dialog id="confirm" aria-labelledby="confirm-title">${question ? html`<form @submit=${this.act}>
        <h2 id="confirm-title">${question.title}</h2>
        <p>${question.text}</p>
        <label for="reason">Reason</label><input id="reason" autocomplete="off" />
        ${this.refusal()}
        <div class="actions">
          ${question.command ? html`<button type="button" @click=${() => copy(question.command)}>${icon('copy')}as igor</button>` : nothing}
          <button type="button" @click=${() => this.querySelector('#confirm').close()}>Leave it</button>
          <button class="primary ${question.danger ? 'danger' : ''}" ?disabled=${this.busy}>${question.word}</button>
        </div></form>` : nothing}</dialog>`;
  }
}

customElements.define('igor-dialogs', Dialogs);
