// The page: sessions on the left, the conversation on the right. All it knows comes from the API.

import { Problem, call, follow, forgetKey, get, key, post, setKey, takeKeyFromFragment } from "/page/stream.js";
import { Turn, bytes, download, element } from "/page/render.js";

const at = (id) => document.getElementById(id);
const main = document.querySelector("main");
const narrow = matchMedia("(max-width: 46rem)");
const state = {
  session: null,
  busy: false,
  queue: new Map(),  // questions that wait for their turn, by the runs that they will have
  waiting: [],  // files that were added before there is a session
  reading: null,  // ends the following of a run
  seen: 0,  // number of the last committed event of the session
  largest: Infinity,  // bytes that a file may have
};

function trouble(error) {
  if (error instanceof Problem && error.status === 401) return showDoor(error);
  at("trouble").textContent = error ? sentence(error.message) : "";
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?)]$/.test(text) ? "" : ".");

// The key

function showDoor(error) {
  for (const id of ["intro", "ask", "log", "past", "forget"]) at(id).hidden = true;
  at("door").hidden = false;
  at("refusal").textContent = error.code === "wrong_key"
    ? "This key is not the one of this server. It stands behind #key= in the link that the server printed, and in the file “key” of its data folder."
    : "";
  at("key").focus();
}

function showDesk() {
  at("door").hidden = true;
  at("forget").hidden = !key();
  for (const id of ["ask", "log", "past"]) at(id).hidden = false;
}

// Sessions

async function listSessions() {
  const { items } = await get("/api/sessions?limit=100");
  at("sessions").replaceChildren(...items.map((session) => {
    const button = element("button", { type: "button", title: session.title }, session.title || "Without a title");
    button.setAttribute("aria-current", String(session.id === state.session?.id));
    button.addEventListener("click", () => openSession(session).catch(trouble));
    return element("li", {}, button);
  }));
}

function setSession(session) {
  state.session = session;
  history.replaceState(null, "", session ? `#session=${session.id}` : location.pathname);
  document.title = session ? `${session.title} · Carrel` : "Carrel";
  at("notebook").hidden = !session;
  at("intro").hidden = Boolean(session);
  at("list").open = !narrow.matches;
}

function clear() {
  state.reading?.abort();
  state.reading = null;
  state.seen = 0;
  state.waiting = [];
  state.queue.clear();
  showQueue();
  at("log").replaceChildren();
  trouble(null);
  setBusy(false);
}

function newSession() {
  clear();
  setSession(null);
  Promise.all([showFiles(), listSessions()]).catch(trouble);
  at("question").focus();
}

// What is stored is drawn again from the log; a run that is going on is followed to its end.
async function openSession(session) {
  clear();
  setSession(session);
  const turns = new Map();
  let running = null;
  for (let more = true; more; ) {
    const { items, last_seq: last } = await get(`/api/sessions/${session.id}/events?after=${state.seen}&limit=500`);
    if (state.session !== session) return;  // another one was opened meanwhile
    for (const event of items) running = place(turns, event, running);
    state.seen = last;
    more = items.length > 0;
  }
  await Promise.all([showFiles(), listSessions()]);
  if (state.session !== session) return;
  [...turns.values()].at(-1)?.root.scrollIntoView({ block: "start" });
  if (running) await followRun(turns.get(running), running, { path: eventsOf(session, running) });
  await followQueue(session);
}

const eventsOf = (session, run) => `/api/sessions/${session.id}/events?after=${state.seen}${run ? `&run=${run}` : ""}`;

// A run without a question of its own answers the last one once more.
function askAgain(turns, run) {
  const [key, turn] = [...turns].at(-1) ?? [];
  if (!turn) return;
  turn.root.remove();
  turns.delete(key);
  turns.set(run, new Turn(at("log"), turn.question, turn.seq));
}

function place(turns, event, running) {
  const run = event.payload.run_id || running;
  noteQueue(event);
  if (event.type === "message.user") {
    turns.set(run, new Turn(at("log"), event.payload.content, event.seq));
    return running;
  }
  if (event.type === "head.moved") {
    for (const [key, turn] of turns) if (turn.seq > event.payload.head) { turn.root.remove(); turns.delete(key); }
    return running;
  }
  if (event.type === "run.started") {
    if (!turns.has(run)) askAgain(turns, run);
    return run;
  }
  turns.get(run)?.take(event);
  return event.type === "run.finished" && event.payload.run_id === running ? null : running;
}

// Runs

async function followRun(turn, run, start) {
  const session = state.session;
  const reading = new AbortController();
  state.reading = reading;
  setBusy(true);
  let finished = false;
  let isRead = false;  // whoever scrolls while the run goes on is left in peace
  for (const kind of ["wheel", "touchmove", "pointerdown"]) {
    main.addEventListener(kind, () => { isRead = true; }, { passive: true, signal: reading.signal });
  }
  try {
    await follow({
      start,
      path: () => eventsOf(session, run),
      after: state.seen,
      signal: reading.signal,
      done: () => finished,
      lost(gone) {
        turn?.lost(gone);
        if (!gone) trouble(null);
      },
      take(event) {
        noteQueue(event);
        if (event.type === "run.started") run ??= event.payload.run_id;
        if (event.type === "message.user" && event.payload.run_id === run) turn ??= new Turn(at("log"), event.payload.content, event.seq);
        if (event.seq) state.seen = event.seq;
        finished = event.type === "run.finished" && event.payload.run_id === run;
        if (finished || event.type !== "run.finished") turn?.take(event);  // a message that waited may be withdrawn
        if (finished) trouble(null);  // what was said of this run, such as that it keeps others waiting, is over
        if (isRead) return;
        if (finished) turn?.answer.scrollIntoView({ block: "start" });
        else main.scrollTop = main.scrollHeight;
      },
    });
  } catch (error) {
    if (!reading.signal.aborted) throw error;
  } finally {
    if (state.reading === reading) {
      state.reading = null;
      setBusy(false);
    }
    reading.abort();
  }
}

function setBusy(busy) {
  state.busy = busy;
  at("send").disabled = busy && !state.reading;
  at("send").textContent = state.reading ? "Ask next" : "Ask";
  at("stop").hidden = !state.reading;
  at("log").setAttribute("aria-busy", String(busy));
}

async function ask(question) {
  trouble(null);
  setBusy(true);
  let turn = null;
  try {
    if (!state.session) {
      setSession(await post("/api/sessions", { title: question.replace(/\s+/g, " ").trim().slice(0, 80) }));
      await listSessions();
    }
    const session = state.session;
    await uploadWaiting();
    turn = new Turn(at("log"), question);
    at("question").value = "";
    main.scrollTop = main.scrollHeight;
    await followRun(turn, null, { path: `/api/sessions/${session.id}/chat/stream`, method: "POST", json: { message: question } });
    await listSessions();
    await followQueue(session);
  } catch (error) {
    if (turn?.isEmpty) {  // it was not taken: nothing of it is kept, and the question can be sent again
      turn.root.remove();
      at("question").value ||= question;
    }
    if (error.code === "busy") openSession(state.session).catch(trouble);  // shows the run that is going on
    throw error;
  } finally {
    if (!state.reading) setBusy(false);
    if (document.activeElement === document.body && !narrow.matches) at("question").focus({ preventScroll: true });
  }
}

// Questions that wait

async function askNext(question) {
  trouble(null);
  const session = state.session;
  const started = new AbortController();  // its stream has the run that goes on, too, which is followed already
  at("question").value = "";
  try {
    const path = `/api/sessions/${session.id}/chat/stream?queue=true`;
    const response = await call(path, { method: "POST", json: { message: question }, headers: { Accept: "text/event-stream" }, signal: started.signal });
    await response.body.getReader().read();
  } catch (error) {
    at("question").value ||= question;
    throw error;
  } finally {
    started.abort();
  }
  if (!state.reading && state.session === session) await openSession(session);  // the run was over just then
}

function noteQueue({ type, payload }) {
  if (type === "message.queued") state.queue.set(payload.run_id, payload);
  else if (!["message.user", "run.finished"].includes(type) || !state.queue.delete(payload.run_id)) return;
  showQueue();
}

function showQueue() {
  at("queue").replaceChildren(...[...state.queue.values()].map(({ message_id: id, content }) => {
    const button = element("button", { type: "button", class: "plain", "aria-label": `Take back: ${content}` }, "Take back");
    button.addEventListener("click", () => takeBack(id, content).catch(trouble));
    return element("li", {}, element("span", { title: content }, content), button);
  }));
}

async function takeBack(id, content) {
  await call(`/api/sessions/${state.session.id}/messages/${id}`, { method: "DELETE" });
  at("question").value ||= content;  // to be put in other words
  at("question").focus();
}

// One run after the other, as long as there are questions.
async function followQueue(session) {
  while (state.queue.size && state.session === session && !state.reading) {
    const [run] = state.queue.keys();
    await followRun(null, run, { path: eventsOf(session, run) });
  }
}

// Files

async function showFiles() {
  const session = state.session;
  const stored = session ? (await get(`/api/sessions/${session.id}/files?limit=1000`)).items : [];
  if (state.session !== session) return;
  at("files").replaceChildren(
    ...stored.map((file) => fileItem(file, async () => {
      const name = file.name.split("/").map(encodeURIComponent).join("/");
      await call(`/api/sessions/${session.id}/files/${name}`, { method: "DELETE" });
    })),
    ...state.waiting.map((file) => fileItem(file, async () => state.waiting.splice(state.waiting.indexOf(file), 1))),
  );
}

function fileItem({ name, size }, remove) {
  const button = element("button", { type: "button", "aria-label": `Remove ${name}`, title: "Remove" }, "×");
  button.addEventListener("click", () => remove().then(showFiles).catch(trouble));
  return element("li", {}, `${name} · ${bytes(size)}`, button);
}

async function add(files) {
  const fitting = files.filter((file) => file.size <= state.largest);
  const tooLarge = files.filter((file) => file.size > state.largest).map((file) => `${file.name} (${bytes(file.size)})`);
  state.waiting.push(...fitting);
  if (state.session) await uploadWaiting();  // without one they wait: an upload alone should not leave an empty one behind
  await showFiles();
  if (tooLarge.length) {
    throw new Error(`Too large: ${tooLarge.join(", ")}. A file may have ${bytes(state.largest)}; CARREL_UPLOAD_MAX_BYTES of the server sets it.`);
  }
}

async function uploadWaiting() {
  const files = [...state.waiting];
  if (!files.length) return;
  const body = new FormData();
  for (const file of files) body.append("file", file, file.name);
  await call(`/api/sessions/${state.session.id}/files`, { method: "POST", body });
  state.waiting = state.waiting.filter((file) => !files.includes(file));
  await showFiles();
}

// What people do

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question && !at("send").disabled) (state.reading ? askNext : ask)(question).catch(trouble);
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
  trouble(null);
  add(files).catch(trouble);
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
    if (!event.dataTransfer.types.includes("Files") || at("ask").hidden) return;
    event.preventDefault();
    document.body.classList.toggle("drop", kind === "dragover");
    trouble(null);
    if (kind === "drop") add([...event.dataTransfer.files]).catch(trouble);
  });
}
narrow.addEventListener("change", () => { at("list").open = !narrow.matches; });
addEventListener("hashchange", () => { if (takeKeyFromFragment()) begin(); });  // a link with a key, in a page that is open

async function begin() {
  const wanted = /^#session=([\w-]+)$/.exec(location.hash)?.[1];
  try {
    const info = await get("/info");
    state.largest = info.upload_max_bytes;
    at("isolation").hidden = info.isolated;
    at("model-note").textContent = info.default_model === "demo/analyst"
      ? "Answers come from the built-in rule-based analyst, not from a language model. Set LLM_MODEL and LLM_API_KEY for one."
      : `Answers come from ${info.default_model}.`;
    await listSessions();
    showDesk();
    newSession();
    if (wanted) await openSession(await get(`/api/sessions/${wanted}`));
  } catch (error) {
    at("ask").hidden = false;  // what went wrong is said there
    trouble(error);
  }
}

takeKeyFromFragment();
begin();
