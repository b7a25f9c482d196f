// Lines and bars as SVG, with a sentence that says the same to whoever does not see them.

import { element, replace } from "./parts.js";

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 400;
const HEIGHT = 120;
const LEFT = 64;
const BOTTOM = 18;

function shape(name, attributes, text = "") {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text) made.textContent = text;
  return made;
}

function frame(label) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  svg.append(shape("line", { class: "axis", x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH, y2: HEIGHT - BOTTOM }));
  return svg;
}

function levels(svg, most, words) {
  for (const part of [0.5, 1]) {
    const y = above(part);
    svg.append(shape("line", { class: "axis", x1: LEFT, y1: y, x2: WIDTH, y2: y }));
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
  const svg = frame(label);
  levels(svg, most, words);
  const length = Math.max(...series.map((one) => one.values.length), 2);
  series.forEach((one, index) => {
    let path = "";
    let drawing = false;
    one.values.forEach((value, at) => {
      if (value === null) { drawing = false; return; }
      const x = LEFT + (WIDTH - LEFT) * at / (length - 1);
      path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${above(Math.min(1, most ? value / most : 0)).toFixed(1)}`;
      // A point alone is a dot.
      if (!drawing) path += "h0.1";
      drawing = true;
    });
    svg.append(shape("path", { class: index ? "second" : "first", d: path || "M0 0", "stroke-linecap": "round" }));
  });
  svg.append(shape("text", { x: LEFT, y: HEIGHT - 3 }, span), shape("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
  replace(holder, series.length > 1 ? [svg, key(series.map((one) => one.name))] : [svg]);
}

// `values`: shares of 0 to 1, one for each of `labels`.
export function bars(holder, label, labels, values) {
  const svg = frame(label);
  const most = Math.max(0.01, ...values);
  levels(svg, most, (value) => `${Math.round(100 * value)} %`);
  const step = (WIDTH - LEFT) / labels.length;
  values.forEach((value, index) => {
    const y = above(value / most);
    svg.append(shape("rect", {
      class: "bar-first", x: (LEFT + step * (index + 0.15)).toFixed(1), y: y.toFixed(1),
      width: (step * 0.7).toFixed(1), height: (HEIGHT - BOTTOM - y).toFixed(1),
    }));
  });
  labels.forEach((text, index) => {
    if (index % 2 === 0) svg.append(shape("text", { x: (LEFT + step * (index + 0.5)).toFixed(1), y: HEIGHT - 3, "text-anchor": "middle" }, text));
  });
  replace(holder, [svg]);
}
