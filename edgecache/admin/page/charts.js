// Lines and bars as SVG, with a sentence that says the same to whoever does not see them.

import { element, replace } from "./parts.js";

const NS = "http://www.w3.org/2000/svg";
const LEAST_WIDTH = 260;
const HEIGHT = 130;
const LEFT = 74;
const BOTTOM = 20;
const LABEL_WIDTH = 58;

function shape(name, attributes, text = "") {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text) made.textContent = text;
  return made;
}

// As wide as there is room for: letters have the size of the page's.
function frame(label, width) {
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  svg.append(shape("line", { class: "axis", x1: LEFT, y1: HEIGHT - BOTTOM, x2: width, y2: HEIGHT - BOTTOM }));
  return svg;
}

function room(holder) {
  return Math.max(LEAST_WIDTH, holder.clientWidth);
}

function levels(svg, width, most, words) {
  for (const part of [0.5, 1]) {
    const y = above(part);
    svg.append(shape("line", { class: "axis", x1: LEFT, y1: y, x2: width, y2: y }));
    svg.append(shape("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, words(most * part)));
  }
}

function above(part) {
  return (HEIGHT - BOTTOM) - part * (HEIGHT - BOTTOM - 8);
}

function key(names) {
  const line = element("p", "", { class: "key" });
  names.forEach((name, index) => {
    line.append(element("b", index ? "┄ " : "─ ", { class: `k${index + 1}`, "aria-hidden": "true" }), `${name}  `);
  });
  return line;
}

// `series`: [{name, values}] with null where nothing is known; the newest is last.
export function lines(holder, label, series, most, words, span) {
  const width = room(holder);
  const svg = frame(label, width);
  levels(svg, width, most, words);
  const length = Math.max(...series.map((one) => one.values.length), 2);
  series.forEach((one, index) => {
    let path = "";
    let drawing = false;
    one.values.forEach((value, at) => {
      if (value === null) { drawing = false; return; }
      const x = LEFT + (width - LEFT) * at / (length - 1);
      path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${above(Math.min(1, most ? value / most : 0)).toFixed(1)}`;
      // A point alone is a dot.
      if (!drawing) path += "h0.1";
      drawing = true;
    });
    svg.append(shape("path", { class: index ? "second" : "first", d: path || "M0 0", "stroke-linecap": "round" }));
  });
  svg.append(shape("text", { x: LEFT, y: HEIGHT - 3 }, span), shape("text", { x: width, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
  replace(holder, series.length > 1 ? [svg, key(series.map((one) => one.name))] : [svg]);
}

// `values`: shares of 0 to 1, one for each of `labels`, up to which it counts; the last one's is empty.
export function bars(holder, label, labels, values) {
  const width = room(holder);
  const svg = frame(label, width);
  const most = Math.max(0.01, ...values);
  levels(svg, width, most, (value) => `${Math.round(100 * value)} %`);
  const step = (width - LEFT) / labels.length;
  values.forEach((value, index) => {
    const y = above(value / most);
    const bar = shape("rect", {
      class: "bar-first", x: (LEFT + step * (index + 0.15)).toFixed(1), y: y.toFixed(1),
      width: (step * 0.7).toFixed(1), height: (HEIGHT - BOTTOM - y).toFixed(1),
    });
    const before = index ? labels[index - 1] : "";
    bar.append(shape("title", {}, `${labels[index] ? `up to ${labels[index]}` : `over ${before}`}: ${(100 * value).toFixed(1)} %`));
    svg.append(bar);
  });
  // The last bar has all that took longer, and is always named; of the others so many as there is room for.
  const every = Math.ceil(LABEL_WIDTH / step);
  const last = labels.length - 1;
  labels.forEach((label, index) => {
    const text = label || `over ${labels[index - 1]}`;
    const free = index % every === 0 && (last - index) * step >= 1.2 * LABEL_WIDTH;
    if (index === last) svg.append(shape("text", { x: width, y: HEIGHT - 3, "text-anchor": "end" }, text));
    else if (free) svg.append(shape("text", { x: (LEFT + step * (index + 0.5)).toFixed(1), y: HEIGHT - 3, "text-anchor": "middle" }, text));
  });
  replace(holder, [svg]);
}
