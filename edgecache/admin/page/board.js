// What /status says, drawn.

import { bars, lines } from "./charts.js";
import { definitions, element, fill, pill, replace } from "./parts.js";
import { ago, bound, clock, count, duration, share, size } from "./words.js";

const at = (id) => document.getElementById(id);

export function draw(status, before) {
  drawNode(status);
  drawAttention(status);
  drawNow(status, before);
  drawFleet(status);
  drawUpstreams(status);
  drawPurges(status);
  drawStore(status);
  drawWorkers(status);
}

// The node does not answer: what is shown was.
export function unanswered(before) {
  at("board").classList.add("old");
  if (!before) return;
  document.title = `${before.node.id} (no answer) – edgecache`;
  replace(at("node-line"), [pill("no answer", "bad")]);
}

function drawNode({ node, versions, warnings }) {
  at("board").classList.remove("old");
  const worst = !node.ready ? " (not ready)" : warnings.length ? ` (${warnings[0].severity})` : "";
  document.title = `${node.id}${worst} – edgecache`;
  at("node-id").textContent = node.id;
  const state = node.ready ? pill("ready", "good") : pill(node.draining ? "draining" : "not ready", "bad");
  const region = node.region ? `region ${node.region}, ` : "";
  const detail = node.detail ? `: ${node.detail}` : "";
  replace(at("node-line"), [state, `${detail} ${region}up ${duration(node.uptime_seconds)}${node.voter ? ", a voter: it serves nobody" : ""}${warnings.length ? "" : ", nothing needs attention"}`]);
  at("versions").textContent = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
}

function drawAttention({ warnings }) {
  const section = at("attention");
  section.hidden = !warnings.length;
  replace(section.querySelector("ul"), warnings.map((warning) => {
    const item = element("li");
    item.append(pill(warning.severity, warning.severity === "critical" ? "bad" : "wait"), ` ${warning.detail} `, element("code", warning.code));
    return item;
  }));
}

// Of ten seconds each.
const LATELY_STEPS = 6;

function rates(status, before) {
  if (!before || status.now <= before.now || status.counters.requests < before.counters.requests) return null;
  const seconds = status.now - before.now;
  const of = (name) => (status.counters[name] - before.counters[name]) / seconds;
  return { requests: of("requests"), hits: of("hits"), sent: of("bytes_sent"), fetched: of("bytes_fetched") };
}

// What is served stale comes from the store as well: an outage of the origin is no fall of the ratio.
function fromStore(history) {
  return history.hits.map((hits, index) => hits + history.stale_hits[index]);
}

function drawNow(status, before) {
  const { counters } = status;
  const now = rates(status, before);
  const lately = (values) => values.slice(-LATELY_STEPS).reduce((sum, one) => sum + one, 0);
  const { history } = status;
  definitions(at("tiles"), [
    ["Requests", now ? `${count(now.requests)} /s` : "…"],
    ["Hit ratio, 1 min", share(lately(fromStore(history)), lately(history.requests))],
    ["Sent", now ? `${size(now.sent)}/s` : "…"],
    ["Fetched", now ? `${size(now.fetched)}/s` : "…"],
    ["Connections", count(counters.connections_open)],
    ["Fills running", count(counters.fills_running)],
    ["Requests in all", count(counters.requests)],
    ["Hit ratio in all", share(counters.hits + counters.stale_hits, counters.requests)],
  ]);
  drawHistory(status.history);
  drawLatency(status.latency);
}

function drawHistory(history) {
  const span = `${duration(history.step_seconds * history.requests.length)} ago`;
  const answered = fromStore(history);
  const ratios = history.requests.map((all, index) => (all > 0 ? answered[index] / all : null));
  const known = ratios.filter((ratio) => ratio !== null);
  const last = known.length ? `${Math.round(100 * known[known.length - 1])} %` : "unknown";
  lines(at("ratio-chart"), `Hit ratio over time, last ${last}`, [{ name: "hits", values: ratios }], 1, (value) => `${Math.round(100 * value)} %`, span);
  const rate = (values) => values.map((octets) => octets / history.step_seconds);
  const [sent, fetched] = [rate(history.sent_bytes), rate(history.fetched_bytes)];
  const most = Math.max(1, ...sent, ...fetched);
  lines(at("octets-chart"), `Sent and fetched over time, at most ${size(most)} a second`,
    [{ name: "sent", values: sent }, { name: "fetched", values: fetched }], most, (value) => `${size(value)}/s`, span);
}

// What took longer than the last bound took nobody knows how long.
function within(part, found, bounds, counts) {
  const all = counts.reduce((sum, one) => sum + one, 0);
  const over = counts[counts.length - 1] > (1 - part) * all;
  return over ? `not within ${bound(bounds[bounds.length - 1])}` : `within ${bound(found)}`;
}

function drawLatency(latency) {
  for (const name of ["hits", "misses"]) {
    const { bounds, counts, recent, p50, p99 } = latency[name];
    // What was a moment ago says more than what was since the start; without requests there is only that.
    const shown = recent.some((one) => one > 0) ? recent : counts;
    const all = shown.reduce((sum, one) => sum + one, 0);
    const none = counts.some((one) => one > 0) ? `no ${name} in five minutes; since the start` : `no ${name} yet`;
    const said = p50 === null ? none : `${name}: half ${within(0.5, p50, bounds, recent)}, 99 % ${within(0.99, p99, bounds, recent)}`;
    at(`${name}-said`).textContent = said;
    const labels = [...bounds.map(bound), ""];
    bars(at(`${name}-chart`), `Share of ${name} by time to the first octet. ${said}`, labels, shown.map((one) => (all ? one / all : 0)));
  }
}

function stateOf(sibling, lease, now) {
  if (sibling.problem) return pill("cannot be called", "bad");
  if (sibling.heard_at === null) return pill("not heard of", "wait");
  if (now - sibling.heard_at > lease.of_seconds) return pill("silent", "bad");
  if (sibling.joining) return pill("joining", "wait");
  return sibling.lacking ? pill("behind", "wait") : pill("well", "good");
}

// Where a sibling has applied more or less of a node's log than is here.
function compared(there, here) {
  const found = [...new Set([...Object.keys(here), ...Object.keys(there)])].sort()
    .filter((name) => (there[name] || 0) !== (here[name] || 0))
    .map((name) => `${name}: ${count(there[name] || 0)} of ${count(here[name] || 0)}`);
  return found.join(", ") || "as here";
}

function drawFleet({ node, siblings, lease, purges, now }) {
  const here = Object.fromEntries(purges.logs.map((log) => [log.node, log.position]));
  const logs = Object.entries(here).filter(([, position]) => position).map(([name, position]) => `${name}: ${count(position)}`).join(", ");
  const own = [`${node.id} (this one)`, node.region || "–",
    lease.fenced ? pill("fenced", "bad") : node.ready ? pill("ready", "good") : pill("not ready", "bad"),
    logs || "none yet", "–", "–", lease.fenced ? "It cannot tell what was purged elsewhere, so it asks the origin before it serves."
      : lease.left_seconds === null ? node.detail : `lease: ${duration(lease.left_seconds)} left of ${duration(lease.of_seconds)}`];
  const rows = siblings.map((one) => [
    one.voter ? `${one.id} (voter)` : one.id, one.region || "–", stateOf(one, lease, now),
    compared(one.positions, here), count(one.lacking), ago(one.heard_at, now), one.problem || "",
  ]);
  fill(at("fleet"), [own, ...rows], "");
}

function drawUpstreams({ upstreams, now }) {
  const kinds = { healthy: "good", ejected: "bad", failing: "bad", unresolved: "bad" };
  const order = (one) => ["bad", "wait", "good"].indexOf(kinds[one.state] || "wait");
  const urgent = (one) => 2 * order(one) + (one.sibling ? 1 : 0);
  const rows = [...upstreams].sort((one, other) => urgent(one) - urgent(other)).map((one) => [
    one.sibling ? `sibling ${one.sibling}, ${one.origin}` : one.origin, one.address || "none known", pill(one.state, kinds[one.state] || "wait"),
    one.said || one.detail || one.reason || "–", one.since === null ? "–" : ago(one.since, now),
    one.next_probe_at === null ? "–" : one.next_probe_at > now ? `in ${duration(one.next_probe_at - now)}` : "now",
  ]);
  fill(at("upstreams"), rows, "No upstream is configured.");
}

export function purgeProgress(purge, now) {
  const members = purge.applied.length + purge.pending.length;
  const bar = element("progress", "", { max: String(members), value: String(purge.applied.length), "aria-label": "nodes that have applied it" });
  let text = ` ${purge.applied.length} of ${members} nodes`;
  if (purge.pending.length) text += `, not yet: ${purge.pending.join(", ")}`;
  return [bar, `${text}. ${meaning(purge, now)}`];
}

// docs/PURGING.md, in a few words.
function meaning({ state, pending, effective_by: due }, now) {
  if (state === "local") return "No majority has it: it holds where it is applied, and is tried on.";
  if (state === "durable" && due !== null && due > now) return `A majority has it; it holds everywhere in ${duration(due - now)} at the latest.`;
  if (state === "durable") return "A majority has it.";
  if (pending.length) return "It holds everywhere: who has not told has no lease, and asks the origin.";
  return "";
}

const stateKinds = { complete: "good", effective: "good", durable: "wait", local: "bad" };

function drawPurges({ purges, now }) {
  const rows = purges.recent.map((purge) => {
    const named = purge.sample.map((one) => `${one.kind} ${one.value}`.trim()).join(", ");
    const more = purge.selectors > purge.sample.length ? ` and ${count(purge.selectors - purge.sample.length)} more` : "";
    return [clock(purge.accepted_at, now), named + more, purge.mode, `${purge.token} at ${purge.accepted_by}`,
      pill(purge.state, stateKinds[purge.state] || "wait"), purgeProgress(purge, now)];
  });
  fill(at("purges"), rows, "Nothing has been purged yet.");
}

function drawStore({ store, hottest, biggest }) {
  const meters = Object.entries(store.environments).map(([name, one]) => {
    const line = element("div", "", { class: "meter" });
    const label = `${name}: ${size(one.used_bytes)} of ${size(one.size_bytes)}`;
    line.append(element("span", name), element("meter", label, { min: "0", max: "1", low: String(store.evict_share), high: String(store.full_share), optimum: "0", value: one.share.toFixed(4), "aria-label": label }),
      element("span", `${size(one.used_bytes)} of ${size(one.size_bytes)}${one.full ? ", full: nothing new is stored" : ""}`));
    return line;
  });
  const { collected } = store;
  const line = element("p", `Evicted since the start: ${count(collected.evicted_records)} objects, ${size(collected.evicted_octets)}.`, { class: "key" });
  replace(at("store"), [...meters, line]);
  fill(at("hottest"), hottest.objects.map((one) => [one.url, one.site, share(one.count, hottest.sampled)]), "Nothing was asked for yet.");
  fill(at("biggest"), biggest.objects.map((one) => [one.url, one.site || "none any more", one.of === null ? size(one.bytes) : `${size(one.bytes)} of ${size(one.of)}`]), "Nothing is stored, or nobody has looked yet.");
  at("biggest-said").textContent = biggest.complete ? "Biggest objects" : `Biggest objects of the ${count(biggest.examined)} looked at so far`;
}

function drawWorkers({ workers }) {
  fill(at("workers"), workers.map((one) => [
    `${one.index}${one.pid ? ` (process ${one.pid})` : ""}`, one.running ? pill("runs", "good") : pill("does not run", "bad"),
    count(one.counters.connections_open), count(one.counters.requests), count(one.counters.fills_running), count(one.restarts),
  ]), "This node has no worker: it is a voter.");
}
