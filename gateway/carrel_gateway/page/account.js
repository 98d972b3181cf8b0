// The page of an account: set up or given a password by the link of a mail, logged in to, and logged out of; keys.

import { call, forgetKey, get, noteLogin, post, renew } from "/page/stream.js";
import { element } from "/page/render.js";

const at = (id) => document.getElementById(id);
const SECTIONS = ["setup", "reset", "login", "me"];
const link = /^#(setup|reset|invite)=(.+)$/.exec(location.hash);
if (link) history.replaceState(null, "", location.pathname);  // it is a secret, and of use here alone

function show(id) {
  for (const section of SECTIONS) at(section).hidden = section !== id;
}

function say(told, trouble = "") {
  at("told").textContent = told;
  at("trouble").textContent = trouble;
}

async function attempt(act) {
  say("");
  try { await act(); } catch (error) { say("", error.message); }
}

function on(id, kind, act) {
  at(id).addEventListener(kind, (event) => {
    event.preventDefault();
    attempt(() => act(Object.fromEntries(at(id) instanceof HTMLFormElement ? new FormData(at(id)) : [])));
  });
}

async function enter(answer) {
  forgetKey();
  noteLogin(answer);
  await showMe();
}

async function showMe() {
  const me = await get("/api/me");
  const { items } = await get("/api/auth/logins");
  at("name").textContent = me.name;
  at("about").textContent = `${me.email ?? ""} · ${me.role} of ${me.tenants.find((tenant) => tenant.id === me.tenant_id)?.name ?? ""}`;
  at("logins").replaceChildren(...items.map((login) => {
    const text = `${login.client}, since ${new Date(login.created_at).toLocaleString()}${login.current ? " (here)" : ""} `;
    const end = element("button", { class: "plain", type: "button" }, "End");
    end.addEventListener("click", () => attempt(async () => {
      await call(`/api/auth/logins/${login.id}`, { method: "DELETE" });
      await showMe();
    }));
    return element("li", {}, text, ...(login.current ? [] : [end]));
  }));
  show("me");
  await showKeys();
  await showUsage();
}

const WHOSE = { tenant: "of the tenant", team: "of a team", user: "your own" };
const WHAT = { sessions: "sessions that are not archived", executions: "executions today" };

async function showUsage() {
  const quotas = (await get("/api/me/quotas")).items;
  at("quotas").replaceChildren(...quotas.map(({ used, limit, resource, scope }) =>
    element("li", {}, `${used} of ${limit} ${WHAT[resource]} (${WHOSE[scope]})`)));
  const { items } = await get("/api/me/usage?by=model");
  at("usage").hidden = !items.length;
  at("unused").hidden = items.length > 0;
  at("usage").tBodies[0].replaceChildren(...items.map((used) => {
    const cost = used.unpriced_calls === used.calls ? "not known" : `$${used.cost.toFixed(4)}`;
    const cells = [used.model, used.calls, used.input_tokens, used.output_tokens, cost];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell.toLocaleString())));
  }));
}

async function showKeys() {
  const { items } = await get("/api/keys?limit=100");
  at("keys").replaceChildren(...items.filter((key) => key.revoked_at === null).map((key) => {
    const end = key.expires_at ? `until ${new Date(key.expires_at).toLocaleDateString()}` : "without an end";
    const revoke = element("button", { class: "plain", type: "button" }, "Revoke");
    revoke.addEventListener("click", () => attempt(async () => {
      await call(`/api/keys/${key.id}`, { method: "DELETE" });
      await showKeys();
    }));
    return element("li", {}, `${key.name} (…${key.hint}), ${end} `, revoke);
  }));
}

async function makeKey({ name, days }) {
  const ends = new Date(Date.now() + days * 86_400_000).toISOString();
  const made = await post("/api/keys", { name, expires_at: ends });
  at("made").hidden = false;
  at("made").querySelector("code").textContent = made.key;
  await showKeys();
}

async function revokeKeys() {
  const { revoked } = await (await call("/api/keys", { method: "DELETE" })).json();
  say(`Revoked: ${revoked}.`);
  await showKeys();
}

async function leave(path) {
  await call(path, { method: "POST" });
  noteLogin(null);
  show("login");
  say("You are logged out.");
}

const byMail = (path) => async () => {
  if (!at("login").elements.email.reportValidity()) return;
  const answer = await post(path, { email: at("login").elements.email.value });
  say(`${answer.message}.`);
};

async function accept(form) {
  try {
    await call("/api/auth/accept", { method: "POST", json: { ...form, token: link[2] } });
    show("login");
    say("You are in: log in.");
  } catch (error) {
    if (error.code !== "name_and_password_needed") throw error;
    show("setup");
  }
}

on("setup", "submit", async (form) => link[1] === "invite" ? accept(form) : enter(await post("/api/auth/verify", { ...form, token: link[2], cookie: true })));
on("reset", "submit", async (form) => {
  await call("/api/auth/reset", { method: "POST", json: { ...form, token: link[2] } });
  noteLogin(null);
  show("login");
  say("Log in with your new password.");
});
on("login", "submit", async (form) => enter(await post("/api/auth/login", { ...form, cookie: true })));
on("make", "submit", makeKey);
on("revoke", "click", revokeKeys);
on("forgot", "click", byMail("/api/auth/forgot"));
on("register", "click", byMail("/api/auth/register"));
on("logout", "click", () => leave("/api/auth/logout"));
on("everywhere", "click", () => leave("/api/auth/logout-everywhere"));

attempt(async () => {
  at("elsewhere").hidden = !(await get("/info")).oidc;
  if (link?.[1] === "invite") await accept({});
  else if (link) show(link[1]);
  else if (await renew()) { forgetKey(); await showMe(); }
  else show("login");
});
