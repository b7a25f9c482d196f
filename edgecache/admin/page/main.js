// Signing in, and asking again and again.

import { Refused, call, token } from "./api.js";
import { draw, unanswered } from "./board.js";
import { begin, problem } from "./search.js";
import { clock } from "./words.js";

const REFRESH_MILLISECONDS = 2000;

const at = (id) => document.getElementById(id);
let before = null;
let timer = 0;

function signedIn(yes) {
  at("sign-in").hidden = yes;
  at("board").hidden = !yes;
  at("sign-out").hidden = !yes;
}

function news(text) {
  // Said once, not every two seconds.
  if (at("news").textContent === text) return;
  at("news").textContent = text;
  at("news").className = text ? "bad" : "";
}

async function refresh() {
  clearTimeout(timer);
  if (!token.get()) { signedIn(false); return; }
  try {
    const status = await call("GET", "/status");
    signedIn(true);
    draw(status, before);
    before = status;
    news("");
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      token.forget();
      signedIn(false);
      at("sign-in-problem").textContent = error.message;
      return;
    }
    unanswered(before);
    news(`${problem(error)} ${before ? `What is shown is of ${clock(before.now, Date.now() / 1000)}.` : "Nothing is shown yet."}`);
  }
  // Nobody looks at a hidden tab.
  if (!document.hidden) timer = setTimeout(refresh, REFRESH_MILLISECONDS);
}

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(at("token").value.trim());
  at("token").value = "";
  at("sign-in-problem").textContent = "";
  refresh();
});
at("sign-out").addEventListener("click", () => { token.forget(); before = null; refresh(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
begin();
refresh();
