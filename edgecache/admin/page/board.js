// What /status says, drawn.

import { bars, lines } from "./charts.js";
import { definitions, element, fill, pill, replace } from "./parts.js";
import { ago, clock, count, duration, share, size } from "./words.js";

const at = (id) => document.getElementById(id);

// What an address did, in words.
const REASONS = {
  "connect-failed": "refuses connections", "connect-timeout": "does not connect", "tls-failed": "TLS fails",
  "certificate-wrong": "has a wrong certificate", "no-head": "takes requests and does not answer", stalled: "stalls in the middle of contents",
  "too-slow": "sends too slowly", lost: "breaks connections off", "bad-response": "does not speak HTTP as it should",
  "wrong-range": "sends other parts than were asked for", "wrong-digest": "sends wrong contents", "error-status": "answers 502, 503 or 504",
};

function reasonOf({ detail, reason }) {
  const text = detail || reason || "";
  const [first, ...rest] = text.split(", ");
  return [REASONS[first] || first, ...rest].join(", ");
}

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

function drawNode({ node, versions }) {
  document.title = `${node.id}${node.ready ? "" : " (not ready)"} – edgecache`;
  at("node-id").textContent = node.id;
  const state = node.ready ? pill("ready", "good") : pill(node.draining ? "draining" : "not ready", "bad");
  const region = node.region ? `region ${node.region}, ` : "";
  const detail = node.detail ? `: ${node.detail}` : "";
  replace(at("node-line"), [state, `${detail} ${region}up ${duration(node.uptime_seconds)}${node.voter ? ", a voter: it serves nobody" : ""}`]);
  at("versions").textContent = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
}

function drawAttention({ warnings }) {
  const section = at("attention");
  section.hidden = !warnings.length;
  replace(section.querySelector("ul"), warnings.map((warning) => {
    const item = element("li");
    item.append(pill(warning.severity, warning.severity === "critical" ? "bad" : "wait"), ` ${warning.detail}`);
    return item;
  }));
}

function rates(status, before) {
  if (!before || status.now <= before.now || status.counters.requests < before.counters.requests) return null;
  const seconds = status.now - before.now;
  const of = (name) => (status.counters[name] - before.counters[name]) / seconds;
  return { requests: of("requests"), hits: of("hits"), sent: of("bytes_sent"), fetched: of("bytes_fetched") };
}

function drawNow(status, before) {
  const { counters } = status;
  const now = rates(status, before);
  definitions(at("tiles"), [
    ["Requests", now ? `${count(now.requests)} /s` : "…"],
    ["Hit ratio", share(counters.hits, counters.requests)],
    ["Sent", now ? `${size(now.sent)}/s` : "…"],
    ["Fetched", now ? `${size(now.fetched)}/s` : "…"],
    ["Connections", count(counters.connections_open)],
    ["Fills running", count(counters.fills_running)],
    ["Requests in all", count(counters.requests)],
    ["Sent in all", size(counters.bytes_sent)],
  ]);
  drawHistory(status.history);
  drawLatency(status.latency);
}

function drawHistory(history) {
  const span = `${duration(history.step_seconds * history.requests.length)} ago`;
  const ratios = history.requests.map((all, index) => (all > 0 ? history.hits[index] / all : null));
  const known = ratios.filter((ratio) => ratio !== null);
  const last = known.length ? `${Math.round(100 * known[known.length - 1])} %` : "unknown";
  lines(at("ratio-chart"), `Hit ratio over time, last ${last}`, [{ name: "hits", values: ratios }], 1, (value) => `${Math.round(100 * value)} %`, span);
  const rate = (values) => values.map((octets) => octets / history.step_seconds);
  const [sent, fetched] = [rate(history.sent_bytes), rate(history.fetched_bytes)];
  const most = Math.max(1, ...sent, ...fetched);
  lines(at("octets-chart"), `Sent and fetched over time, at most ${size(most)} a second`,
    [{ name: "sent", values: sent }, { name: "fetched", values: fetched }], most, (value) => `${size(value)}/s`, span);
}

function drawLatency(latency) {
  for (const name of ["hits", "misses"]) {
    const { bounds, counts, recent, p50, p99 } = latency[name];
    // What was a moment ago says more than what was since the start; without requests there is only that.
    const shown = recent.some((one) => one > 0) ? recent : counts;
    const all = shown.reduce((sum, one) => sum + one, 0);
    const said = p50 === null ? `No ${name} yet` : `${name}: half within ${duration(p50)}, 99 % within ${duration(p99)}`;
    at(`${name}-said`).textContent = said;
    const labels = [...bounds.map((bound) => duration(bound)), "more"];
    bars(at(`${name}-chart`), `Share of ${name} by time to the first octet. ${said}`, labels, shown.map((one) => (all ? one / all : 0)));
  }
}

function drawFleet({ node, siblings, lease, now }) {
  const own = [`${node.id} (this one)`, node.region || "–",
    lease.fenced ? pill("fenced", "bad") : node.ready ? pill("ready", "good") : pill("not ready", "bad"),
    "0", "–", lease.fenced ? "It cannot tell what was purged elsewhere, so it asks the origin before it serves."
      : lease.left_seconds === null ? node.detail : `lease: ${duration(lease.left_seconds)} left of ${duration(lease.of_seconds)}`];
  const rows = siblings.map((one) => [
    one.voter ? `${one.id} (voter)` : one.id, one.region || "–",
    one.problem ? pill("cannot be called", "bad") : one.joining ? pill("joining", "wait") : one.heard_at === null ? pill("not heard of", "wait") : pill("well", "good"),
    count(one.lacking), ago(one.heard_at, now), one.problem || "",
  ]);
  fill(at("fleet"), [own, ...rows], "");
}

function drawUpstreams({ upstreams, now }) {
  const kinds = { healthy: "good", ejected: "bad", probing: "wait" };
  const urgent = (one) => (one.healthy && one.state === "healthy" ? 1 : 0);
  const rows = [...upstreams].sort((one, other) => urgent(one) - urgent(other)).map((one) => [
    one.origin, one.address || "none known", pill(one.state, kinds[one.state] || "wait"),
    reasonOf(one), one.since === null ? "–" : ago(one.since, now),
    one.next_probe_at === null ? "–" : one.next_probe_at > now ? `in ${duration(one.next_probe_at - now)}` : "now",
  ]);
  fill(at("upstreams"), rows, "No upstream is configured.");
}

export function purgeProgress(purge, now) {
  const members = purge.applied.length + purge.pending.length;
  const bar = element("progress", "", { max: String(members), value: String(purge.applied.length), "aria-label": "nodes that have applied it" });
  let text = ` ${purge.applied.length} of ${members}`;
  if (purge.pending.length) text += `, pending: ${purge.pending.join(", ")}`;
  if (purge.pending.length && purge.effective_by !== null) {
    text += purge.effective_by > now ? `; holds everywhere in ${duration(purge.effective_by - now)} at the latest` : "; holds everywhere";
  }
  return [bar, text];
}

const stateKinds = { complete: "good", effective: "good", durable: "wait", local: "bad" };

function drawPurges({ purges, now }) {
  const rows = purges.recent.map((purge) => {
    const named = purge.sample.map((one) => `${one.kind} ${one.value}`.trim()).join(", ");
    const more = purge.selectors > purge.sample.length ? ` and ${count(purge.selectors - purge.sample.length)} more` : "";
    return [clock(purge.accepted_at), named + more, purge.mode, `${purge.token} at ${purge.accepted_by}`,
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
  fill(at("biggest"), biggest.objects.map((one) => [one.url, one.site || "none any more", size(one.bytes)]), "Nothing is stored, or nobody has looked yet.");
  at("biggest-said").textContent = biggest.complete ? "Biggest objects" : `Biggest objects of the ${count(biggest.examined)} looked at so far`;
}

function drawWorkers({ workers }) {
  fill(at("workers"), workers.map((one) => [
    `${one.index}${one.pid ? ` (process ${one.pid})` : ""}`, one.running ? pill("runs", "good") : pill("does not run", "bad"),
    count(one.counters.connections_open), count(one.counters.requests), count(one.counters.fills_running), count(one.restarts),
  ]), "This node has no worker: it is a voter.");
}
