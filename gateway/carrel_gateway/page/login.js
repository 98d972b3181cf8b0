// A login of this browser: the refresh token is a cookie that no script can read; the access token lives in this page
// alone. Tabs take turns at the exchange, because a refresh token is good once.

const MARK = "carrel.login";  // says only that there is a login to go on with
const EARLY = 60_000;
let token = null;
let ends = 0;

export const isLoggedIn = () => localStorage.getItem(MARK) !== null;

// Takes what a login answered.
export function take(tokens) {
  token = tokens.access_token;
  ends = Date.parse(tokens.expires_at);
  localStorage.setItem(MARK, "yes");
}

export function forget() {
  token = null;
  localStorage.removeItem(MARK);
}

// The access token, exchanged when it is about to end; null when nobody is logged in any more.
export async function accessToken() {
  if (token && ends - Date.now() > EARLY) return token;
  if (!isLoggedIn()) return null;
  return navigator.locks.request("carrel.login", exchange);
}

// Goes on with the cookie, also one that this page knows nothing of yet: that of a sign-in elsewhere.
export const goOn = () => navigator.locks.request("carrel.login", exchange);

async function exchange() {
  if (token && ends - Date.now() > EARLY) return token;
  const response = await fetch("/api/auth/refresh", { method: "POST" });
  if (response.ok) take(await response.json());
  else if (response.status === 400 || response.status === 401) forget();
  else throw new Error("The server cannot look at the login now. Try again soon.");
  return token;
}
