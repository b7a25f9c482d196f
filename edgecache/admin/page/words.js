// Numbers and times for people.

export function size(octets) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (octets >= 1024 && unit < units.length - 1) { octets /= 1024; unit += 1; }
  return `${unit && octets < 100 ? octets.toFixed(1) : Math.round(octets)} ${units[unit]}`;
}

export function count(number) {
  return Math.round(number).toLocaleString("en");
}

export function share(part, whole) {
  return whole > 0 ? `${(100 * part / whole).toFixed(1)} %` : "–";
}

export function duration(seconds) {
  seconds = Math.max(0, seconds);
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// A bound of a histogram: exactly.
export function bound(seconds) {
  return seconds < 1 ? `${+(seconds * 1000).toPrecision(3)} ms` : `${seconds} s`;
}

export function ago(moment, now) {
  return moment === null || moment === undefined ? "never" : `${duration(now - moment)} ago`;
}

// A time of today; with its date when it was another day.
export function clock(moment, now) {
  const [when, today] = [new Date(moment * 1000), new Date(now * 1000)];
  const time = when.toLocaleTimeString("en-GB");
  if (when.toDateString() === today.toDateString()) return time;
  return `${when.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })} ${time}`;
}
