// The page of one's account: log in and out, register, set an account up, choose a password, make and revoke keys.

import { call, get, post } from "/page/stream.js";
import { forget, goOn, take } from "/page/login.js";
import { element } from "/page/render.js";

const at = (id) => document.getElementById(id);
const SECTIONS = ["log-in", "set-up", "reset", "mine"];
let secret = null;  // the token of a mail's link; it is taken out of the address at once

function show(section) {
  for (const id of SECTIONS) at(id).hidden = id !== section;
  at("log-out").hidden = section !== "mine";
}

function say(text) {
  at("told").textContent = text;
  at("trouble").textContent = "";
}

const trouble = (error) => { at("trouble").textContent = error.message; };

function onSubmit(id, act) {
  at(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = at(id).querySelector("button");
    button.disabled = true;
    say("");
    try { await act(Object.fromEntries(new FormData(at(id)))); } catch (error) { trouble(error); }
    button.disabled = false;
  });
}

async function showMine() {
  const me = await get("/api/me");
  const tenant = me.tenants.find(({ id }) => id === me.tenant_id);
  at("who").textContent = me.email || me.name;
  at("rights").textContent = `${me.role} of ${tenant ? tenant.name : me.tenant_id}`;
  show("mine");
  await showKeys();
}

async function showKeys() {
  const { items } = await get("/api/keys?limit=100");
  at("keys").replaceChildren(...items.filter(({ revoked_at: gone }) => !gone).map((key) => {
    const button = element("button", { type: "button", class: "plain" }, "Revoke");
    button.addEventListener("click", async () => {
      try {
        await call(`/api/keys/${key.id}`, { method: "DELETE" });
        await showKeys();
      } catch (error) { trouble(error); }
    });
    const end = key.expires_at ? `until ${key.expires_at.slice(0, 10)}` : "without an end";
    return element("li", {}, `${key.name} (…${key.hint}), ${end} `, button);
  }));
}

onSubmit("log-in-form", async ({ email, password }) => {
  take(await post("/api/auth/login", { email, password, cookie: true }));
  location.assign("/");
});
onSubmit("register-form", async ({ email }) => say((await post("/api/auth/register", { email })).message));
onSubmit("set-up-form", async ({ name, password }) => {
  take(await post("/api/auth/verify", { token: secret, name, password, cookie: true }));
  location.assign("/");
});
onSubmit("reset-form", async ({ password }) => {
  await call("/api/auth/reset", { method: "POST", json: { token: secret, password } });
  show("log-in");
  say("That is your password now. Log in with it.");
});
onSubmit("key-form", async ({ name, days }) => {
  const ends = days ? new Date(Date.now() + days * 86_400_000).toISOString() : undefined;
  const made = await post("/api/keys", { name, expires_at: ends });
  at("made").hidden = false;
  at("made").querySelector("code").textContent = made.key;
  await showKeys();
});
at("forgot").addEventListener("click", async () => {
  const { email } = Object.fromEntries(new FormData(at("log-in-form")));
  if (!email) return trouble(new Error("Write your address of mail first."));
  try { say((await post("/api/auth/forgot", { email })).message); } catch (error) { trouble(error); }
});
at("log-out").addEventListener("click", async () => {
  try { await call("/api/auth/logout", { method: "POST" }); } catch (error) { return trouble(error); }
  forget();
  location.reload();
});

async function begin() {
  const [, kind, token] = /^#(setup|reset)=(.+)$/.exec(location.hash) ?? [];
  if (kind) {
    secret = decodeURIComponent(token);
    history.replaceState(null, "", location.pathname);
    return show(kind === "setup" ? "set-up" : "reset");
  }
  const info = await get("/info");
  at("single").hidden = !info.single_sign_on;
  at("register-form").hidden = !info.registration;
  if (await goOn()) return showMine();
  show("log-in");
}

begin().catch((error) => { show("log-in"); trouble(error); });
