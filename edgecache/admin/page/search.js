// Look up a URL: what would happen to a request for it, and why; and purge it.

import { Refused, call } from "./api.js";
import { purgeProgress } from "./board.js";
import { element, replace } from "./parts.js";
import { clock } from "./words.js";

const MODES = {
  revalidate: "revalidate: ask the origin before serving it",
  soft: "soft: it may be served stale meanwhile",
  delete: "delete: as if it had never been stored",
};
const POLLS = 60;
const POLL_MILLISECONDS = 500;

const at = (id) => document.getElementById(id);

export function begin() {
  at("look-up").addEventListener("submit", (event) => {
    event.preventDefault();
    lookUp(at("url").value.trim());
  });
}

async function lookUp(url) {
  replace(at("found"), [element("p", "Looking …")]);
  try {
    const answer = await call("GET", `/explain?url=${encodeURIComponent(url)}`);
    replace(at("found"), explained(url, answer));
  } catch (error) {
    replace(at("found"), [element("p", problem(error), { role: "alert" })]);
  }
}

function explained(url, answer) {
  const summary = element("ul", "", { id: "summary", class: "lead" });
  summary.append(...lines(answer));
  const list = element("dl");
  for (const [term, value] of rows(answer)) list.append(element("dt", term), element("dd", value));
  const all = element("details");
  all.append(element("summary", "All that the node knows of it"), list);
  return [summary, purging(url), all];
}

function lines(answer) {
  const now = Date.now() / 1000;
  return [...answer.summary.map((line) => element("li", line)), element("li", `So it was at ${clock(now, now)}.`, { class: "none" })];
}

// What was said of it before the purge is not true any more. Without an answer it says of when it is; the purge goes on.
async function again(url) {
  const summary = at("summary");
  try {
    const answer = await call("GET", `/explain?url=${encodeURIComponent(url)}`);
    if (at("summary") === summary) replace(summary, lines(answer));
  } catch { /* The next refresh says what is the matter. */ }
}

// Whatever the node says, one line for each value, nested names joined.
function rows(answer, before = "") {
  const found = [];
  for (const [name, value] of Object.entries(answer)) {
    if (name === "summary" || value === null || value === "") continue;
    const term = (before ? `${before} ` : "") + name.replaceAll("_", " ");
    if (Array.isArray(value) && value.every((one) => typeof one !== "object")) {
      if (value.length) found.push([term, value.join(", ")]);
    } else if (Array.isArray(value)) {
      value.forEach((one, index) => found.push([`${term} ${index + 1}`, Object.entries(one).filter(([, part]) => part !== null && part !== "").map(([part, text]) => `${part.replaceAll("_", " ")} ${text}`).join(", ")]));
    } else if (typeof value === "object") {
      found.push(...rows(value, term));
    } else {
      found.push([term, value === true ? "yes" : value === false ? "no" : String(value)]);
    }
  }
  return found;
}

function purging(url) {
  const form = element("form", "", { id: "purge" });
  const mode = element("select", "", { id: "purge-mode" });
  for (const [name, text] of Object.entries(MODES)) mode.append(element("option", text, { value: name }));
  const button = element("button", "Purge it everywhere", { type: "submit", class: "danger" });
  const progress = element("p", "", { id: "purge-progress", role: "status" });
  form.append(element("label", "Purge", { for: "purge-mode" }), mode, button, progress);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    button.disabled = true;
    purge(url, mode.value, progress).finally(() => { button.disabled = false; });
  });
  return form;
}

async function purge(url, mode, progress) {
  try {
    let answer = await call("POST", "/purge?wait=durable&timeout=5", { urls: [url], mode });
    again(url);
    for (let poll = 0; poll < POLLS; poll += 1) {
      replace(progress, [`${answer.state}: `, ...purgeProgress(answer, Date.now() / 1000)]);
      if (answer.state === "complete") return;
      await new Promise((done) => { setTimeout(done, POLL_MILLISECONDS); });
      answer = await call("GET", `/purge/${encodeURIComponent(answer.id)}`);
    }
  } catch (error) {
    replace(progress, [problem(error)]);
  }
}

export function problem(error) {
  if (error instanceof Refused) return error.message;
  return error instanceof SyntaxError ? "The node's answer was not JSON." : "The node does not answer.";
}
