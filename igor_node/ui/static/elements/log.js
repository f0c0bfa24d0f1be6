/**
 * The log of a run: follows while it is written, pauses when you scroll up, searches, wraps, has a link for each line. Only the lines in
 * view are in the document. Lines are text nodes, colours of ANSI are spans around them: nothing of a log is ever read as HTML.
 */

import { html, nothing, LitElement } from '../vendor/lit.js';
import { AnsiUp } from '../vendor/ansi_up.js';
import { path } from '../app/api.js';
import { setQuery } from '../app/route.js';
import { ENDS, copy, icon, preference, prefer } from './shared.js';

const ROW_PX = 19.5;
const AROUND = 30; // rows drawn above and below the view
const KEPT = 200_000; // lines in memory; older ones go first
const RETRY_MS = 1000;

const ansi = new AnsiUp();
ansi.use_classes = true;
const escape = (text) => text.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]/g, '');

class Log extends LitElement {
  static properties = { run: {}, query: {}, lines: { state: true }, following: { state: true }, top: { state: true }, find: { state: true }, failed: { state: true }, complete: { state: true } };

  createRenderRoot() {
    return this;
  }

  connectedCallback() {
    super.connectedCallback();
    this.lines = [];
    this.following = true;
    this.top = 0;
    this.find = '';
    this.view = preference('log.time', 'off');
    this.wrap = preference('log.wrap', 'no') === 'yes';
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.reader?.abort();
    this.reader = null;
    this.reading = null;
  }

  updated(changed) {
    if (changed.has('run') && this.run && this.reading !== this.run.id) this.read(this.run.id);
    if (changed.has('lines') && this.following) this.toEnd();
  }

  async read(run) {
    this.reader?.abort();
    const reader = new AbortController();
    this.reader = reader;
    this.reading = run;
    this.lines = [];
    this.complete = false;
    let from;
    while (!reader.signal.aborted && !this.complete) {
      try {
        const answer = await fetch(path(`/v1/runs/${run}/logs`, { follow: 1, offset: from }), { signal: reader.signal, credentials: 'same-origin' });
        if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail || `HTTP ${answer.status}`);
        this.failed = null;
        from = await this.take(answer, from);
      } catch (error) {
        if (reader.signal.aborted) return;
        this.failed = error.message;
      }
      if (!this.complete) await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }

  /** Reads lines of JSON until the answer ends. Returns the offset to go on from. */
  async take(answer, from) {
    const stream = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await stream.read();
      if (done) return from;
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      const fresh = [];
      for (const part of parts) {
        if (!part) continue;
        const item = JSON.parse(part);
        if (item.complete !== undefined && item.text === undefined) this.complete = item.complete;
        else {
          fresh.push(item);
          from = item.next ?? item.offset + 1;
        }
      }
      if (fresh.length) this.lines = [...this.lines, ...fresh].slice(-KEPT);
    }
  }

  get box() {
    return this.querySelector('.log');
  }

  toEnd() {
    this.updateComplete.then(() => { if (this.box) this.box.scrollTop = this.box.scrollHeight; });
  }

  scrolled() {
    const box = this.box;
    this.top = box.scrollTop;
    const end = box.scrollHeight - box.scrollTop - box.clientHeight < 2 * ROW_PX;
    if (end !== this.following) this.following = end;
  }

  hits() {
    if (!this.find) return [];
    const text = this.find.toLowerCase();
    return this.lines.flatMap((line, at) => (escape(line.text).toLowerCase().includes(text) ? [at] : []));
  }

  jump(at) {
    this.following = false;
    this.updateComplete.then(() => { this.box.scrollTop = Math.max(0, at * ROW_PX - this.box.clientHeight / 3); });
  }

  next(hits) {
    if (!hits.length) return;
    const here = this.at ?? -1;
    this.at = hits.find((hit) => hit > here) ?? hits[0];
    this.jump(this.at);
  }

  time(line) {
    if (this.view === 'off' || !line.time) return nothing;
    if (this.view === 'utc') return html`<span class="at">${line.time.slice(11, 23)}</span>`;
    return html`<span class="at">${`+${((Date.parse(line.time) - Date.parse(this.lines[0].time)) / 1000).toFixed(3)}s`.padStart(10)}</span>`;
  }

  text(line) {
    if (!line.text.includes('\u001b[')) return line.text;
    // ansi_up escapes the text itself; its HTML is parsed apart and only text and class names are taken over.
    const parsed = new DOMParser().parseFromString(ansi.ansi_to_html(line.text), 'text/html').body;
    return [...parsed.childNodes].map((node) => (node.nodeType === Node.TEXT_NODE ? node.data : html`<span class=${node.className || ''}>${node.textContent}</span>`));
  }

  row(line, at, targets, hits) {
    const number = at + 1;
    const kind = `${line.stream === 'stderr' || line.stream === 'err' ? 'err' : ''} ${line.stream === 'igor' ? 'cut' : ''} ${hits.has(at) ? 'hit' : ''} ${number >= targets[0] && number <= targets[1] ? 'target' : ''}`;
    return html`<div class="row ${kind}"><a class="no" href="#" @click=${(event) => { event.preventDefault(); setQuery({ L: String(number) }); }} aria-label="line ${number}">${number}</a>${this.time(line)}<span>${this.text(line)}</span></div>`;
  }

  render() {
    if (!this.run) return nothing;
    const hits = this.hits();
    const marked = new Set(hits);
    const [from, to = from] = (this.query?.L || '0').split('-').map(Number);
    const all = this.wrap ? this.lines.slice(-5000) : this.lines; // wrapped rows have no fixed height, so they are not windowed
    const high = this.box?.clientHeight || 600;
    const first = this.wrap ? 0 : Math.max(0, Math.floor(this.top / ROW_PX) - AROUND);
    const last = this.wrap ? all.length : Math.min(all.length, Math.ceil((this.top + high) / ROW_PX) + AROUND);
    const shift = this.wrap ? this.lines.length - all.length : 0;
    return html`<div class="toolbar"><strong>Log</strong>
        <label class="visually-hidden" for="log-find">Search the log</label><input id="log-find" type="search" placeholder="Search" size="14" @input=${(event) => { this.find = event.target.value; this.at = -1; }} @keydown=${(event) => event.key === 'Enter' && this.next(hits)} />
        ${this.find ? html`<span class="quiet" role="status">${hits.length} found</span>` : nothing}
        <label><span class="visually-hidden">Time stamps</span><select @change=${(event) => { this.view = event.target.value; prefer('log.time', this.view); this.requestUpdate(); }}>
          ${['off', 'utc', 'relative'].map((name) => html`<option value=${name} ?selected=${this.view === name}>${name === 'off' ? 'no times' : name === 'utc' ? 'UTC' : name}</option>`)}</select></label>
        <label><input type="checkbox" ?checked=${this.wrap} @change=${(event) => { this.wrap = event.target.checked; prefer('log.wrap', this.wrap ? 'yes' : 'no'); this.requestUpdate(); }} /> wrap</label>
        <button @click=${() => copy(this.lines.map((line) => line.text).join('\n'))}>${icon('copy')}Copy</button>
        ${this.following || !this.lines.length ? nothing : html`<button @click=${() => { this.following = true; this.toEnd(); }}>${icon('chevron-down')}Follow</button>`}</div>
      ${this.failed ? html`<div class="banner">${icon('triangle-alert')}<span>The log cannot be read now: ${this.failed}. Trying again.</span></div>` : nothing}
      <div class="log ${this.wrap ? 'wrap' : ''}" tabindex="0" role="log" aria-label="Output" aria-live="off" @scroll=${this.scrolled}>
        ${all.length ? html`<div .style=${`height:${first * ROW_PX}px`}></div>${all.slice(first, last).map((line, at) => this.row(line, first + at + shift, [from, to], marked))}
          <div .style=${`height:${(all.length - last) * ROW_PX}px`}></div>` : html`<div class="row"><span class="no"></span><span>${this.complete || ENDS.has(this.run.state) ? 'No output.' : 'Waiting for output…'}</span></div>`}
      </div>
      <p class="quiet" role="status">${this.lines.length} line${this.lines.length === 1 ? '' : 's'}${this.complete ? '' : ', following'}</p>`;
  }
}

customElements.define('igor-log', Log);
