// Talks to the API: JSON requests, and server-sent events read with fetch, so that the key goes in a header.

const KEY = "carrel.key";

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
}

export const key = () => localStorage.getItem(KEY);
export const setKey = (value) => localStorage.setItem(KEY, value);
export const forgetKey = () => localStorage.removeItem(KEY);

export async function call(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (key()) sent.Authorization = `Bearer ${key()}`;
  if (json !== undefined) sent["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers: sent, body: json === undefined ? body : JSON.stringify(json), signal });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

export const get = async (path) => (await call(path)).json();
export const post = async (path, json) => (await call(path, { method: "POST", json })).json();

// Calls `take` with every event until the stream ends, and comes back with the last id when the connection breaks.
export async function follow(path, { start, take, done, signal }) {
  let request = start;
  let last = null;
  for (let failures = 0; failures < 8 && !done(); ) {
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) };
      const response = await call(request.path || path, { ...request, headers, signal });
      for await (const event of events(response.body)) {
        failures = 0;
        if (event.id !== null) last = event.id;
        take(JSON.parse(event.data));
      }
      if (done()) return;
    } catch (error) {
      if (error instanceof Problem || signal?.aborted) throw error;
    }
    failures += 1;
    request = { path };
    last ??= "0";
    await new Promise((resume) => setTimeout(resume, Math.min(300 * 2 ** failures, 8000)));
  }
  if (!done()) throw new Error("The connection to the server is gone. The run goes on; reload to see it.");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let event = { id: null, data: "" };
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
}
