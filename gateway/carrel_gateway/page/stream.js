// Talks to the API: JSON requests, and server-sent events read with fetch, so that the key goes in a header.

const KEY = "carrel.key";
const LOGIN = "carrel.login";

const MOST_FAILURES = 40;  // in a row, at last 8 s apart: a gateway that is gone for five minutes is not waited for

export class Away extends Error {
  constructor() {
    super("The server does not answer. Check that it is running and that you are connected to it, then try again.");
  }
}

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `The server answered ${status}.`);
    this.status = status;
    this.code = body.code || "unknown";
  }
}

export function takeKeyFromFragment() {
  const found = /^#key=(.+)$/.exec(location.hash);
  if (found) {
    localStorage.setItem(KEY, decodeURIComponent(found[1]));
    history.replaceState(null, "", location.pathname);
  }
  return found !== null;
}

export const key = () => localStorage.getItem(KEY);
export const setKey = (value) => localStorage.setItem(KEY, value);
export const forgetKey = () => localStorage.removeItem(KEY);

// Whoever has logged in has no key: their access token is here while the page is open, and the token that gets the next
// one is a cookie that no script can read.
let token = null;
let renewing = null;

export function noteLogin(answer) {
  token = answer?.access_token ?? null;
  if (answer) localStorage.setItem(LOGIN, "yes");
  else localStorage.removeItem(LOGIN);
}

// Gets an access token with the cookie, and says whether there is one. Other pages of this browser wait: the cookie is
// good once.
export function renew() {
  const ask = async () => {
    const response = await fetch("/api/auth/refresh", { method: "POST" }).catch(() => { throw new Away(); });
    if (response.status >= 500 || response.status === 429) throw new Problem(response.status, await response.json().catch(() => ({})));
    noteLogin(response.ok ? await response.json() : null);
    return response.ok;
  };
  renewing ??= (navigator.locks ? navigator.locks.request("carrel-refresh", ask) : ask()).finally(() => { renewing = null; });
  return renewing;
}

export async function call(path, options = {}) {
  try {
    return await send(path, options);
  } catch (error) {
    const mayRenew = error instanceof Problem && error.status === 401 && !key() && localStorage.getItem(LOGIN);
    if (!mayRenew || !(await renew())) throw error;
    return send(path, options);
  }
}

async function send(path, { method = "GET", json, body, headers = {}, signal }) {
  const sent = { ...headers };
  const credential = key() ?? token;
  if (credential) sent.Authorization = `Bearer ${credential}`;
  if (json !== undefined) sent["Content-Type"] = "application/json";
  const request = { method, headers: sent, body: json === undefined ? body : JSON.stringify(json), signal };
  const response = await fetch(path, request).catch((error) => { throw error.name === "AbortError" ? error : new Away(); });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

export const get = async (path) => (await call(path)).json();
export const post = async (path, json) => (await call(path, { method: "POST", json })).json();

// Calls `take` with every event until `done`. The first request is `start`; when the connection breaks later, it comes
// back at `path()` with the id of the last event (`after`, before there was one), and calls `lost` with true, then false.
export async function follow({ start, path, after, take, done, lost, signal }) {
  let request = start;
  let last = String(after);
  let begun = false;
  for (let failures = 0; failures < MOST_FAILURES; failures += 1) {
    try {
      const headers = { Accept: "text/event-stream", ...(begun ? { "Last-Event-ID": last } : {}) };
      const response = await call(request.path, { ...request, headers, signal });
      if (begun) lost(false);
      begun = true;
      for await (const event of events(response.body)) {
        failures = 0;
        if (event.id !== null) last = event.id;
        take(JSON.parse(event.data));
        if (done()) return;
      }
    } catch (error) {
      const refused = error instanceof Problem && error.status < 500;
      if (!begun || refused || signal.aborted) throw error;
    }
    lost(true);
    request = { path: path() };
    await new Promise((resume) => setTimeout(resume, Math.min(300 * 2 ** failures, 8000)));
    if (signal.aborted) return;
  }
  throw new Error("The connection to the server is gone. The run goes on there; reload this page to see it.");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let event = { id: null, data: "" };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (held + value).split("\n");
      held = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data) yield event;
          event = { id: null, data: "" };
        } else if (line.startsWith("data: ")) event.data += line.slice(6);
        else if (line.startsWith("id: ")) event.id = line.slice(4);
      }
    }
  } finally {
    reader.cancel().catch(() => {});  // it may be broken already
  }
}
