/** The frame: left rail, top bar, keys, toasts; and which page is shown. Everything else is an element of its own. */

import { html, nothing, LitElement } from '../vendor/lit.js';
import { get, request } from './api.js';
import { age, listen, start } from './live.js';
import { current, link } from './route.js';
import { icon, prefer, preference } from '../elements/shared.js';
import '../elements/home.js';
import '../elements/jobs.js';
import '../elements/job.js';
import '../elements/runs.js';
import '../elements/run.js';
import '../elements/nodes.js';
import '../elements/dialogs.js';

const PAGES = [
  ['home', 'Home', 'house', 'h'],
  ['jobs', 'Jobs', 'list-checks', 'j'],
  ['runs', 'Runs', 'list', 'r'],
  ['nodes', 'Nodes', 'server', 'n'],
];
const KEYS = [
  ['g h, g j, g r, g n', 'Home, Jobs, Runs, Nodes'],
  ['/ or Ctrl-K', 'search'],
  ['j, k', 'next, previous row'],
  ['Enter', 'open the row'],
  ['l', 'to the log (on a run)'],
  ['?', 'this help'],
];
const CLUSTER_EVERY_MS = 3000;

class App extends LitElement {
  static properties = { route: { state: true }, cluster: { state: true }, me: { state: true }, stale: { state: true }, toasts: { state: true }, found: { state: true } };

  createRenderRoot() {
    return this;
  }

  connectedCallback() {
    super.connectedCallback();
    this.toasts = [];
    this.found = null;
    this.route = current();
    this.applyTheme();
    start();
    window.addEventListener('hashchange', () => this.arrive());
    window.addEventListener('keydown', (event) => this.key(event));
    window.addEventListener('igor-toast', (event) => this.toast(event.detail));
    this.look();
    this.who();
    setInterval(() => this.look(), CLUSTER_EVERY_MS);
    setInterval(() => { this.stale = age(); }, 1000);
    listen((event) => String(event.kind || '').startsWith('node') && this.look());
  }

  arrive() {
    const before = this.route.page + this.route.rest.join('/');
    this.route = current();
    if (before !== this.route.page + this.route.rest.join('/')) {
      window.scrollTo(0, 0);
      this.updateComplete.then(() => this.querySelector('main')?.focus({ preventScroll: true }));
    }
  }

  async look() {
    if (document.hidden) return;
    try {
      this.cluster = await get('/v1/cluster');
      this.denied = null;
    } catch (error) {
      this.denied = error;
      if (error.status !== 401) this.cluster = { ...(this.cluster || { voters: [], nodes: [] }), unreachable: true };
      this.requestUpdate();
    }
  }

  async who() {
    try {
      this.me = await get('/v1/whoami');
    } catch {
      this.me = null;
    }
  }

  async logOut() {
    try {
      await request('DELETE', '/v1/session');
      location.reload();
    } catch (error) {
      this.toast({ text: error.message, bad: true });
    }
  }

  /** Who is logged in, and what for. Without tokens there is nobody to show. */
  person() {
    if (!this.me?.token) return nothing;
    const projects = this.me.projects?.length ? ` of ${this.me.projects.join(', ')}` : '';
    return html`<span class="pill" id="who">${this.me.name || this.me.token}: ${this.me.role}${projects}</span>
      <button class="quiet" @click=${() => this.logOut()}>Log out</button>`;
  }

  toast(detail) {
    const entry = { ...detail, key: Math.random() };
    this.toasts = [...this.toasts, entry];
    setTimeout(() => { this.toasts = this.toasts.filter((other) => other !== entry); }, 6000);
  }

  applyTheme() {
    const theme = preference('theme', 'system');
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  choose(name, value) {
    prefer(name, value);
    this.applyTheme();
    for (const element of this.querySelectorAll('main *')) element.requestUpdate?.();
  }

  key(event) {
    const typing = ['INPUT', 'TEXTAREA', 'SELECT'].includes(document.activeElement?.tagName || '') || document.querySelector('dialog[open]');
    if ((event.key === 'k' && (event.ctrlKey || event.metaKey)) || (event.key === '/' && !typing)) {
      event.preventDefault();
      this.querySelector('#search').focus();
      return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.goes) {
      const page = PAGES.find(([, , , key]) => key === event.key);
      if (page) location.hash = link([page[0]]);
      this.goes = false;
    } else if (event.key === 'g') {
      this.goes = true;
      setTimeout(() => { this.goes = false; }, 1500);
    } else if (event.key === '?') this.querySelector('#keys').showModal();
    else if (event.key === 'j' || event.key === 'k') this.move(event.key === 'j' ? 1 : -1);
    else if (event.key === 'l') this.querySelector('.log')?.focus();
  }

  move(step) {
    const links = [...this.querySelectorAll('main tbody tr a.main')];
    const at = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, at + step))]?.focus();
  }

  async search(text) {
    if (!text.trim()) {
      this.found = null;
      return;
    }
    const { items } = await get('/v1/jobs', { limit: 1000 });
    const jobs = items.filter((job) => job.id.toLowerCase().includes(text.toLowerCase())).slice(0, 8);
    const nodes = (this.cluster?.nodes || []).filter((node) => node.name.includes(text));
    this.found = [
      ...jobs.map((job) => [link(['job', job.id]), `job ${job.id}`]),
      ...nodes.map((node) => [link(['nodes'], { node: node.name }), `node ${node.name}`]),
      ...(/^[0-9a-v]{6,20}$/.test(text) ? [[link(['run', text]), `run ${text}`]] : []),
    ];
  }

  pill() {
    const cluster = this.cluster;
    if (!cluster) return nothing;
    if (cluster.unreachable) return html`<span class="pill warn" role="status">${icon('triangle-alert')}this node does not answer</span>`;
    if (!cluster.leader || cluster.quorum === false) return html`<span class="pill warn" role="status">${icon('triangle-alert')}read only: no quorum</span>`;
    const alone = cluster.highly_available ? '' : ', not highly available';
    return html`<span class="pill ${alone ? 'warn' : ''}" role="status">${icon(alone ? 'info' : 'circle-check')}${cluster.voters.length}
      voter${cluster.voters.length === 1 ? '' : 's'}, leader ${cluster.leader}, term ${cluster.term}${alone}</span>`;
  }

  page() {
    const { page, rest, query } = this.route;
    if (this.denied?.status === 401) {
      return html`<div class="banner bad" role="alert">${icon('triangle-alert')}<span>You are not logged in here. Type <code>igor ui</code>: it opens a link that logs in once.</span></div>`;
    }
    if (page === 'jobs') return html`<igor-jobs .query=${query}></igor-jobs>`;
    if (page === 'job') return html`<igor-job .job=${rest.join('/')} .query=${query}></igor-job>`;
    if (page === 'runs') return html`<igor-runs .query=${query}></igor-runs>`;
    if (page === 'run') return html`<igor-run .run=${rest[0] || ''} .query=${query}></igor-run>`;
    if (page === 'nodes') return html`<igor-nodes .cluster=${this.cluster} .query=${query}></igor-nodes>`;
    return html`<igor-home .cluster=${this.cluster}></igor-home>`;
  }

  render() {
    const here = { job: 'jobs', run: 'runs' }[this.route.page] || this.route.page;
    const clock = preference('clock', 'utc');
    const theme = preference('theme', 'system');
    return html`
      <a class="skip-link" href="#main" @click=${(event) => { event.preventDefault(); this.querySelector('main').focus(); }}>Skip to content</a>
      <header class="bar">
        <a class="brand" href="#/home">Igor</a>
        <div class="search" role="search">
          <label class="visually-hidden" for="search">Search jobs, runs and nodes</label>
          <input id="search" type="search" placeholder="Search  ( / )" autocomplete="off" @input=${(event) => this.search(event.target.value)}
            @keydown=${(event) => { if (event.key === 'Enter' && this.found?.length) { location.hash = this.found[0][0]; this.found = null; event.target.value = ''; } if (event.key === 'Escape') { this.found = null; event.target.blur(); } }} />
          ${this.found ? html`<ul>${this.found.length ? this.found.map(([to, text]) => html`<li><a href=${to} @click=${() => { this.found = null; }}>${text}</a></li>`) : html`<li class="quiet">Nothing found</li>`}</ul>` : nothing}
        </div>
        <span class="grow"></span>
        ${this.stale ? html`<span class="pill warn" role="status">${icon('refresh-cw')}stale since ${this.stale} s</span>` : nothing}
        ${this.pill()}
        ${this.person()}
        <label><span class="visually-hidden">Clock</span><select id="clock" @change=${(event) => this.choose('clock', event.target.value)}>
          ${['utc', 'local', 'relative'].map((name) => html`<option value=${name} ?selected=${clock === name}>${name === 'utc' ? 'UTC' : name}</option>`)}</select></label>
        <label><span class="visually-hidden">Theme</span><select id="theme" @change=${(event) => this.choose('theme', event.target.value)}>
          ${['system', 'light', 'dark'].map((name) => html`<option value=${name} ?selected=${theme === name}>${name}</option>`)}</select></label>
      </header>
      <nav class="rail" aria-label="Pages"><ul>
        ${PAGES.map(([name, word, picture]) => html`<li><a href="#/${name}" aria-current=${here === name ? 'page' : nothing}>${icon(picture)}${word}</a></li>`)}
      </ul></nav>
      <main id="main" tabindex="-1">
        ${this.cluster && (!this.cluster.leader || this.cluster.quorum === false) && !this.cluster.unreachable
          ? html`<div class="banner">${icon('triangle-alert')}<span>Read only: this node hears no leader, so nothing can be changed now. What you see is ${this.cluster.age_s ? `${Math.round(this.cluster.age_s)} s old` : 'perhaps old'}; running jobs go on.</span></div>` : nothing}
        ${this.page()}
      </main>
      <igor-dialogs></igor-dialogs>
      <dialog id="keys" aria-label="Keys"><h2>Keys</h2><dl class="facts">${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
        <form method="dialog" class="actions"><button autofocus>Close</button></form></dialog>
      <div class="toasts" role="status" aria-live="polite">${this.toasts.map((entry) => html`<div class="toast ${entry.bad ? 'bad' : ''}">${entry.text}</div>`)}</div>`;
  }
}

customElements.define('igor-app', App);
