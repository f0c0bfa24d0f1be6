/** The one way to data: /v1 of the node that served the page. Reads never go back behind this tab's own writes. */

let written = 0;

/** A refusal of the API, in its own words. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.hint = problem.hint || '';
    this.faults = problem.faults || [];
  }
}

/** Path with query; parameters that are empty are left out. @param {Record<string, any>} query */
export function path(base, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `${base}?${text}` : base;
}

export async function request(method, url, body = undefined, headers = {}) {
  const send = { Accept: 'application/json', ...headers };
  if (body !== undefined) send['Content-Type'] = 'application/json';
  if (method === 'GET' && written) send['Igor-Index'] = String(written);
  const answer = await fetch(url, {
    method, headers: send, credentials: 'same-origin', body: body === undefined ? undefined : JSON.stringify(body),
  });
  const index = Number(answer.headers.get('Igor-Index') || 0);
  if (method !== 'GET' && index > written) written = index;
  const text = await answer.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    data = { detail: text.slice(0, 200) };
  }
  if (!answer.ok) throw new ApiError(answer.status, data || {});
  return data;
}

export const get = (base, query) => request('GET', path(base, query));
export const post = (url, body = {}, headers = {}) => request('POST', url, body, headers);

/** `project/name` as it stands in a path. */
export const jobPath = (job) => `/v1/jobs/${job.split('/').map(encodeURIComponent).join('/')}`;

/** The same request as a command to copy. */
export function asCurl(method, url, body) {
  const data = body === undefined ? '' : ` -H 'Content-Type: application/json' -d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`;
  return `curl -X ${method} -H "Authorization: Bearer $IGOR_TOKEN"${data} '${location.origin}${url}'`;
}
