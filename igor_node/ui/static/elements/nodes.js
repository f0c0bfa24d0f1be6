/** Nodes: a card each, with its role, slots, labels and clock; and where the replicas stand. */

import { html, nothing } from '../vendor/lit.js';
import { get } from '../app/api.js';
import { link } from '../app/route.js';
import { duration } from '../app/time.js';
import { Live, empty, icon, state, when } from './shared.js';

class Nodes extends Live {
  static properties = { ...Live.properties, cluster: {}, query: {} };

  load() {
    return get('/v1/cluster');
  }

  card(node, leader) {
    const labels = Object.entries(node.labels || {});
    const used = node.running || 0;
    return html`<section class="card" id="node-${node.name}"><div class="head"><h2>${node.name === leader ? html`<span title="leader">${icon('crown')}</span> ` : nothing}${node.name}</h2>${state(node.state)}</div>
      <dl class="facts"><dt>Role</dt><dd>${node.role}${node.name === leader ? ', leader' : ''}${node.ephemeral ? ', ephemeral' : ''}</dd><dt>Address</dt><dd class="mono">${node.address}</dd>
        <dt>Slots</dt><dd>${used} of ${node.slots} used<div class="slots" aria-hidden="true">${Array.from({ length: Math.min(node.slots, 64) }, (_, at) => html`<span class="slot ${at < used ? 'used' : ''}"></span>`)}</div></dd>
        <dt>Clock</dt><dd>${node.clock_error_s === null || node.clock_error_s === undefined ? '–' : `within ${duration(Math.abs(node.clock_error_s))} of the leader's`}</dd>
        ${node.version ? html`<dt>Version</dt><dd>${node.version}</dd>` : nothing}
        ${node.heard_at ? html`<dt>Last heard</dt><dd>${when(node.heard_at)}</dd>` : nothing}
        <dt>Labels</dt><dd>${labels.length ? labels.map(([name, value]) => html`<code>${name}=${value}</code> `) : html`<span class="quiet">none</span>`}</dd></dl></section>`;
  }

  view() {
    const cluster = this.data;
    if (!cluster.nodes.length) return html`<h1>Nodes</h1>${empty('No node is registered yet.')}`;
    return html`<div class="head"><h1>Nodes</h1></div>
      ${cluster.highly_available ? nothing : html`<div class="banner">${icon('info')}<span>Not highly available: ${cluster.voters.length} voter${cluster.voters.length === 1 ? '' : 's'}. With three, any one may be lost. Join two more: <code>igor-node join ${location.host} --token-file join.token</code></span></div>`}
      <dl class="facts card"><dt>Cluster</dt><dd class="mono">${cluster.id}</dd><dt>Leader</dt><dd>${cluster.leader || 'none'} in term ${cluster.term}</dd><dt>Voters</dt><dd>${cluster.voters.join(', ')}</dd>
        <dt>Commit index</dt><dd>${cluster.commit_index} <span class="quiet">(this node has applied ${cluster.applied_index})</span></dd></dl>
      <h2 class="visually-hidden">All nodes</h2>
      <div class="cards" .style=${'margin-top:16px'}>${cluster.nodes.map((node) => this.card(node, cluster.leader))}</div>
      <p><a href=${link(['runs'], { state: 'running' })}>What runs now</a></p>`;
  }
}

customElements.define('igor-nodes', Nodes);
