/** The state of the page lives in its URL: `#/runs?state=failed`. This module reads and writes it, nothing else does. */

/** @returns {{page: string, rest: string[], query: Record<string, string>}} */
export function current() {
  const [where, search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [page = 'home', ...rest] = where.split('/').filter(Boolean).map(decodeURIComponent);
  return { page: page || 'home', rest, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** The link of a page. @param {string[]} parts @param {Record<string, any>} query */
export function link(parts, query = {}) {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '' && value !== undefined && value !== null));
  const text = search.toString();
  return `#/${parts.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`;
}

export const jobLink = (job) => link(['job', job]);
export const runLink = (run) => link(['run', run]);

/** Changes part of the query in place, without a new entry in the history. */
export function setQuery(changes) {
  const { page, rest, query } = current();
  history.replaceState(null, '', link([page, ...rest], { ...query, ...changes }));
  window.dispatchEvent(new HashChangeEvent('hashchange'));
}
