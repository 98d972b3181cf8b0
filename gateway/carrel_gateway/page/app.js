// The page: sessions on the left, the conversation on the right. All it knows comes from the API.

import { Problem, call, follow, forgetKey, get, key, post, setKey, takeKeyFromFragment } from "/page/stream.js";
import { Turn, bytes, download, element } from "/page/render.js";

const at = (id) => document.getElementById(id);
const state = { session: null, busy: false, waiting: [], reading: null };

function trouble(error) {
  if (error instanceof Problem && error.status === 401) return showDoor(error.code === "wrong_key" ? error.message : "");
  at("trouble").textContent = error ? error.message : "";
  at("trouble").hidden = !error;
}

function showDoor(message) {
  for (const id of ["intro", "ask", "log"]) at(id).hidden = true;
  at("door").hidden = false;
  at("forget").hidden = true;
  at("trouble").textContent = message;
  at("trouble").hidden = !message;
  at("key").focus();
}

function showDesk() {
  at("door").hidden = true;
  at("forget").hidden = !key();
  for (const id of ["ask", "log"]) at(id).hidden = false;
}

async function listSessions() {
  const { items } = await get("/api/sessions?limit=100");
  at("sessions").replaceChildren(...items.map((session) => {
    const button = element("button", { type: "button", title: session.title }, session.title);
    button.setAttribute("aria-current", String(session.id === state.session?.id));
    button.addEventListener("click", () => openSession(session).catch(trouble));
    return element("li", {}, button);
  }));
}

async function showFiles() {
  const items = state.session ? (await get(`/api/sessions/${state.session.id}/files`)).items : [];
  at("files").replaceChildren(...items.map((file) => element("li", {}, `${file.name} · ${bytes(file.size)}`)),
    ...state.waiting.map((file) => element("li", {}, `${file.name} · ${bytes(file.size)}`)));
  at("notebook").hidden = !state.session;
}

function clear() {
  state.reading?.abort();
  state.reading = null;
  at("log").replaceChildren();
  trouble(null);
  setBusy(false);
}

function newSession() {
  clear();
  state.session = null;
  state.waiting = [];
  at("intro").hidden = false;
  showFiles();
  listSessions().catch(trouble);
  at("question").focus();
}

// What is stored is drawn again from the log; a run that is going on is followed to its end.
async function openSession(session) {
  clear();
  state.session = session;
  state.waiting = [];
  at("intro").hidden = true;
  const turns = new Map();
  let running = null;
  let after = 0;
  for (;;) {
    const { items, last_seq: last } = await get(`/api/sessions/${session.id}/events?after=${after}&limit=500`);
    for (const event of items) running = place(turns, event, running);
    if (items.length < 500) { after = last; break; }
    after = last;
  }
  await Promise.all([showFiles(), listSessions()]);
  if (running) await followRun(turns.get(running), running, { path: `/api/sessions/${session.id}/events?after=${after}&run=${running}` });
}

function place(turns, event, running) {
  const run = event.payload.run_id || running;
  if (event.type === "message.user") {
    turns.set(run, new Turn(at("log"), event.payload.content));
    return running;
  }
  if (event.type === "run.started") return event.payload.run_id;
  turns.get(run)?.take(event);
  return event.type === "run.finished" && event.payload.run_id === running ? null : running;
}

async function followRun(turn, run, start) {
  const reading = new AbortController();
  state.reading = reading;
  setBusy(true);
  let finished = false;
  try {
    await follow(`/api/sessions/${state.session.id}/events?run=${run || ""}`, {
      start, signal: reading.signal, done: () => finished,
      take(event) {
        if (event.type === "run.started") run = event.payload.run_id;
        turn.take(event);
        if (event.type === "run.finished" && event.payload.run_id === run) finished = true;
        at("log").scrollIntoView({ block: "end" });
      },
    });
  } catch (error) {
    if (!reading.signal.aborted) throw error;
  } finally {
    if (state.reading === reading) setBusy(false);
  }
}

function setBusy(busy) {
  state.busy = busy;
  at("send").disabled = busy;
  at("stop").hidden = !busy;
  at("log").setAttribute("aria-busy", String(busy));
}

async function ask(question) {
  trouble(null);
  if (!state.session) {
    state.session = await post("/api/sessions", { title: question.replace(/\s+/g, " ").trim().slice(0, 80) });
    await listSessions();
  }
  if (state.waiting.length) await upload(state.waiting.splice(0));
  at("intro").hidden = true;
  at("question").value = "";
  const turn = new Turn(at("log"), question);
  turn.root.scrollIntoView({ block: "start" });
  const path = `/api/sessions/${state.session.id}/chat/stream`;
  await followRun(turn, null, { path, method: "POST", json: { message: question } });
  await listSessions();
}

async function upload(files) {
  if (!files.length) return;
  if (!state.session) {  // kept until there is a session: an upload alone should not leave an empty one behind
    state.waiting.push(...files);
    return showFiles();
  }
  const body = new FormData();
  for (const file of files) body.append("file", file, file.name);
  await call(`/api/sessions/${state.session.id}/files`, { method: "POST", body });
  await showFiles();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question && !state.busy) ask(question).catch(trouble);
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
at("upload").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  upload(files).catch(trouble);
});
at("stop").addEventListener("click", () => post(`/api/sessions/${state.session.id}/cancel`).catch(trouble));
at("new").addEventListener("click", newSession);
at("notebook").addEventListener("click", async (event) => {
  event.preventDefault();
  try {
    const response = await call(`/api/sessions/${state.session.id}/notebook`);
    download(await response.blob(), `${state.session.title.replace(/[^\w -]+/g, "_")}.ipynb`);
  } catch (error) { trouble(error); }
});
at("forget").addEventListener("click", () => { forgetKey(); location.reload(); });
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(at("key").value.trim());
  begin();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("drop", kind === "dragover");
    if (kind === "drop") upload([...event.dataTransfer.files]).catch(trouble);
  });
}

async function begin() {
  try {
    const info = await get("/info");
    at("isolation").textContent = "local: code runs as you, not isolated";
    at("isolation").hidden = info.isolated;
    at("model-note").textContent = info.default_model === "demo/analyst"
      ? "Answers come from the built-in rule-based analyst, not from a language model. Set LLM_MODEL and LLM_API_KEY for one."
      : `Answers come from ${info.default_model}.`;
    await listSessions();
    showDesk();
    trouble(null);
    at("question").focus();
  } catch (error) { trouble(error); }
}

takeKeyFromFragment();
begin();
