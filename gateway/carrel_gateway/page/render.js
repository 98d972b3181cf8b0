// Turns events into elements. Text goes in as text, never as HTML: what code prints must not become a part of this page.

import { call } from "/page/stream.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const plain = (text) => text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "");

export class Turn {
  constructor(log, question, seq = 0) {
    this.question = question;
    this.seq = seq;  // of the question, in the log
    this.root = element("article", { class: "turn" });
    if (question) this.root.append(element("h2", { class: "asked" }, question));
    this.plan = element("ul", { class: "plan" });
    this.plan.hidden = true;
    this.steps = element("div");
    this.draft = element("div", { class: "answer draft" });
    this.answer = element("div", { class: "answer" });
    this.made = element("div", { class: "made" });
    this.working = element("p", { class: "working", role: "status" }, "Thinking");
    this.said = "";
    this.root.append(this.plan, this.steps, this.draft, this.answer, this.made, this.working);
    this.cells = new Map();
    this.codeDraft = null;
    log.append(this.root);
  }

  // Whether nothing has come for it yet.
  get isEmpty() { return !this.taken; }

  take(event) {
    this.taken = true;
    if (event.live) return this.takeLive(event);
    const payload = event.payload;
    switch (event.type) {
      case "plan": return this.showPlan(payload.steps);
      case "model.call": this.dropDrafts(); return this.say("Reading the reply");
      case "cell.intended": return this.beginCell(payload);
      case "cell.outputs": return this.showOutputs(payload);
      case "cell.finished": return this.endCell(payload);
      case "artifact.stored": return payload.category === "data" ? undefined : this.showArtifact(payload);
      case "message.assistant": this.dropDrafts(); return this.answer.replaceChildren(...markdown(payload.content));
      case "kernel.changed": return payload.lost_state ? this.note("The kernel is a new one: the variables of earlier cells are gone.") : undefined;
      case "session.resumed": return this.note(resumption(payload));
      case "session.recovered": return this.note(recovery(payload));
      case "run.taken_over": return this.say("Another gateway goes on with this run");
      case "run.finished": return this.end(payload);
    }
  }

  takeLive(event) {
    const { text } = event.payload;
    if (event.type === "text.delta") this.draft.textContent += text;
    else if (event.type === "code.delta") this.draftCode(text);
    else if (event.type === "output") this.liveOutput(event.payload);
    else if (event.type === "plan.delta") this.say("Planning");
  }

  say(text) {
    this.said = text;
    this.working.textContent = text;
  }

  // The connection is gone, or there again; what was said before is true again then.
  lost(gone) { this.working.textContent = gone ? "The server does not answer; trying again" : this.said; }

  note(text) { this.steps.append(element("p", { class: "note" }, text)); }

  dropDrafts() {
    this.draft.textContent = "";
    this.codeDraft?.remove();
    this.codeDraft = null;
  }

  draftCode(text) {
    if (!this.codeDraft) {
      this.codeDraft = element("pre", { class: "code draft" });
      this.steps.append(this.codeDraft);
      this.say("Writing code");
    }
    this.codeDraft.textContent += text;
  }

  showPlan(steps) {
    this.plan.hidden = !steps.length;
    this.plan.replaceChildren(...steps.map(({ status = "open", title }) =>
      element("li", { class: status }, element("span", { class: "hidden" }, `${status}: `), title)));
  }

  beginCell({ execution_id: id, code }) {
    this.dropDrafts();
    if (this.cells.has(id)) return this.cells.get(id);
    const state = element("span", { class: "state" }, "running");
    const outputs = element("div", { class: "outputs" });
    const root = element("details", { class: "cell", open: "" },
      element("summary", {}, element("span", {}, `Cell ${this.cells.size + 1}`), state), element("pre", { class: "code", tabindex: "0" }, code), outputs);
    const cell = { root, state, outputs, committed: [], live: [] };
    this.cells.set(id, cell);
    this.steps.append(root);
    this.say("Running code");
    return cell;
  }

  liveOutput({ execution_id: id, event }) {
    const cell = this.cells.get(id);
    if (!cell) return;
    const output = outputOf(event);
    if (!output) return;
    const before = cell.live.at(-1);
    cell.live.push(output);
    if (before && isSameStream(before, output)) cell.outputs.lastElementChild.append(plain(output.text));  // much text stays quick
    else drawOutputs(cell.outputs, [...cell.committed, ...cell.live]);
  }

  showOutputs({ execution_id: id, outputs }) {
    const cell = this.cells.get(id) || this.beginCell({ execution_id: id, code: "" });
    cell.committed.push(...outputs);
    cell.live = [];
    drawOutputs(cell.outputs, cell.committed);
  }

  endCell({ execution_id: id, status, wall_seconds: seconds, message, code }) {
    const cell = this.cells.get(id) || this.beginCell({ execution_id: id, code: code || "" });
    const time = seconds === undefined ? "" : ` · ${seconds < 10 ? seconds.toFixed(2) : Math.round(seconds)} s`;
    cell.state.textContent = status + time;
    cell.root.classList.toggle("failed", status !== "ok");
    if (message) cell.outputs.append(element("pre", { class: "error" }, message));
    this.say("Looking at the result");
  }

  async showArtifact({ artifact_id: id, name, content_type: type, size }) {
    const save = element("button", { type: "button", class: "plain" }, "Save");
    const box = element("figure", {}, element("figcaption", {}, element("span", {}, `${name} · ${bytes(size)}`), save));
    this.made.append(box);
    const blob = () => call(`/api/artifacts/${id}`).then((response) => response.blob());
    const failed = (error) => box.append(element("p", { class: "trouble" }, `${name} could not be loaded. ${error.message}`));
    save.setAttribute("aria-label", `Save ${name}`);
    save.addEventListener("click", () => blob().then((content) => download(content, name)).catch(failed));
    if (/^image\/(png|jpeg|gif|webp)$/.test(type)) await blob().then((content) => box.prepend(shown(content, name))).catch(failed);
  }

  end({ status, message, code }) {
    this.working.remove();
    this.dropDrafts();
    if (status === "succeeded") {  // now the answer is what counts; the cells are one click away
      for (const { root } of this.cells.values()) root.open = false;
    }
    if (status !== "succeeded") {
      this.root.append(element("p", { class: "trouble" }, `The run ${status === "cancelled" ? "was cancelled" : status}. ${message || code || ""}`));
    }
  }
}

function resumption({ variables = 0, files = 0, not_restored: lost = [], not_restored_count: count = 0 }) {
  const back = `The state of before is back: ${variables} variables and ${files} files.`;
  if (!count) return back;
  const names = lost.slice(0, 10).map(({ name, reason }) => `${name} (${reason})`).join(", ");
  return `${back} Not back: ${names}${count > 10 ? `, and ${count - 10} more` : ""}.`;
}

function recovery({ variables = 0, files = 0, as_of: at, lost_cells_count: cells = 0, message }) {
  const back = `The kernel was lost. Back as of ${new Date(at).toLocaleString()}: ${variables} variables and ${files} files.`;
  const lost = cells ? ` What ${cells} later cell${cells > 1 ? "s" : ""} did is gone.` : "";
  return `${back}${lost}${message ? ` ${message}` : ""}`;
}

export function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name.split("/").pop() });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const bytes = (size) =>
  size < 1024 ? `${size} B` : size < 1048576 ? `${(size / 1024).toFixed(1)} KB` : `${(size / 1048576).toFixed(1)} MB`;

function outputOf(event) {
  if (event.type === "stdout" || event.type === "stderr") return { output_type: "stream", name: event.type, text: event.text };
  if (event.type === "error") return { output_type: "error", traceback: event.traceback };
  if (event.type === "clear") return { output_type: "clear_output", wait: event.wait };
  if (event.type === "display" || event.type === "result") {
    const kind = event.update ? "update_display_data" : "display_data";
    return { output_type: kind, data: event.data, transient: { display_id: event.display_id } };
  }
  return null;
}

const isSameStream = (one, other) => one.output_type === "stream" && other.output_type === "stream" && one.name === other.name;

// Joins neighbouring text, and lets clears and updates take effect, as a notebook does.
function drawOutputs(box, outputs) {
  const kept = [];
  let clears = false;
  for (const output of outputs) {
    const kind = output.output_type;
    if (kind === "update_display_data") {
      const id = output.transient?.display_id;
      for (const other of kept) if (id && other.transient?.display_id === id) other.data = output.data;
      continue;
    }
    if (clears || (kind === "clear_output" && !output.wait)) kept.length = 0;
    clears = kind === "clear_output" && Boolean(output.wait);
    if (kind === "clear_output") continue;
    if (kept.length && isSameStream(kept.at(-1), output)) kept.at(-1).text += output.text;
    else kept.push({ ...output });
  }
  box.replaceChildren(...kept.map(draw).filter(Boolean));
}

function draw(output) {
  if (output.output_type === "stream") return printed(output.text, output.name === "stderr");
  if (output.output_type === "error") return printed(output.traceback.join("\n"), true);
  const data = output.data;
  if (!data) return null;
  for (const type of ["image/png", "image/jpeg"]) {
    if (data[type]) return picture(type, data[type]);
  }
  const tabular = data["application/vnd.carrel.table+json"];
  if (tabular) return table(tabular, data["text/plain"]);
  return data["text/plain"] ? printed(String(data["text/plain"])) : null;
}

// Can be reached with the keyboard, because it may be larger than its box.
const printed = (text, isError = false) => element("pre", { class: isError ? "error" : "", tabindex: "0" }, plain(text));

function picture(type, base64) {
  const binary = Uint8Array.from(atob(base64.replace(/\s/g, "")), (character) => character.charCodeAt(0));
  return shown(new Blob([binary], { type }), "Plot");
}

function shown(blob, alt) {
  const image = element("img", { src: URL.createObjectURL(blob), alt });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  return image;
}

function table(content, fallback) {
  const columns = (content.columns || content.schema?.fields || []).map((column) => String(column.name ?? column));
  const rows = content.rows || content.data || [];
  if (!columns.length || !Array.isArray(rows[0])) return printed(String(fallback || ""));
  const head = element("tr", {}, ...columns.map((name) => element("th", {}, name)));
  const body = rows.slice(0, 20).map((row) => element("tr", {}, ...row.map((value) => element("td", {}, value === null ? "" : String(value)))));
  return element("div", { class: "scroll" }, element("table", {}, head, ...body));
}

// The part of Markdown that answers use: headings, lists, tables, fences, paragraphs; bold, italics, code. No links to
// elsewhere and no pictures: an answer could carry data out with them.
export function markdown(text) {
  const made = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) at += 1;
    else if (/^```/.test(line)) {
      const end = lines.findIndex((other, place) => place > at && /^```/.test(other));
      const stop = end < 0 ? lines.length : end;
      made.push(element("pre", { class: "code" }, element("code", {}, lines.slice(at + 1, stop).join("\n"))));
      at = stop + 1;
    } else if (heading) {
      made.push(element(`h${Math.min(heading[1].length + 1, 4)}`, {}, ...inline(heading[2])));
      at += 1;
    } else if (/^\s*\|.*\|\s*$/.test(line)) {
      const stop = until(lines, at, (other) => /^\s*\|.*\|\s*$/.test(other));
      made.push(tableOf(lines.slice(at, stop)));
      at = stop;
    } else if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) {
      const stop = until(lines, at, (other) => /^\s*([-*+]|\d+[.)])\s+/.test(other) || /^\s{2,}\S/.test(other));
      const items = [];
      for (const item of lines.slice(at, stop)) {
        if (/^\s*([-*+]|\d+[.)])\s+/.test(item)) items.push(item.replace(/^\s*([-*+]|\d+[.)])\s+/, ""));
        else items[items.length - 1] += ` ${item.trim()}`;
      }
      made.push(element(/^\s*\d/.test(line) ? "ol" : "ul", {}, ...items.map((item) => element("li", {}, ...inline(item)))));
      at = stop;
    } else {
      const stop = until(lines, at, (other) => other.trim() && !/^(#{1,6}\s|```|\s*([-*+]|\d+[.)])\s+|\s*\|)/.test(other));
      made.push(element("p", {}, ...inline(lines.slice(at, stop).join(" "))));
      at = stop;
    }
  }
  return made;
}

function until(lines, at, goesOn) {
  let stop = at + 1;
  while (stop < lines.length && goesOn(lines[stop])) stop += 1;
  return stop;
}

function tableOf(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const rows = lines.filter((line) => !/^[\s|:-]+$/.test(line)).map(cells);
  const drawn = rows.map((row, place) => element("tr", {}, ...row.map((cell) => element(place ? "td" : "th", {}, ...inline(cell)))));
  return element("div", { class: "scroll" }, element("table", {}, ...drawn));
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*|(?<![\w`])_[^_\s](?:[^_]*[^_\s])?_(?!\w))/).filter(Boolean).map((part) => {
    if (/^`.+`$/.test(part)) return element("code", {}, part.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(part)) return element("strong", {}, ...inline(part.slice(2, -2)));
    if (/^\*.+\*$/.test(part) || /^_.+_$/.test(part)) return element("em", {}, ...inline(part.slice(1, -1)));
    return part;
  });
}
