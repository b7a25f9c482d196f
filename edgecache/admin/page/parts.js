// Elements. All text goes through textContent: nothing that a client or an origin has sent is ever markup.

export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function pill(text, kind) {
  return element("span", text, { class: `pill ${kind}` });
}

// Each row is a list of cells: text, an element, or a list of both. Rows are replaced only when they have changed, so
// that whoever reads or selects them is not disturbed.
export function fill(table, rows, nothing) {
  const body = table.tBodies[0];
  if (!table.hasAttribute("role")) keepTable(table);
  const made = rows.map((cells) => row(cells, table));
  if (!rows.length) {
    const cell = element("td", nothing, { role: "cell", class: "none", colspan: String(table.tHead.rows[0].cells.length) });
    const only = element("tr", "", { role: "row" });
    only.append(cell);
    made.push(only);
  }
  made.forEach((one, index) => {
    const shown = body.rows[index];
    if (!shown) body.append(one);
    else if (!shown.isEqualNode(one)) shown.replaceWith(one);
  });
  while (body.rows.length > made.length) body.deleteRow(-1);
}

// Where there is little room a row is shown as a card (style.css), each cell with its column's name; the roles keep it a
// table, with the names of its columns, for whoever has it read out.
function keepTable(table) {
  table.setAttribute("role", "table");
  const names = table.tHead.rows[0];
  names.setAttribute("role", "row");
  for (const name of names.cells) name.setAttribute("role", "columnheader");
}

function row(cells, table) {
  const made = element("tr", "", { role: "row" });
  cells.forEach((cell, index) => {
    const column = table.tHead.rows[0].cells[index];
    const holder = index === 0 ? element("th", "", { scope: "row", role: "rowheader" }) : element("td", "", { role: "cell" });
    holder.dataset.column = column.textContent;
    if (column.className === "number") holder.className = "number";
    const together = Array.isArray(cell) ? element("span") : cell;
    if (Array.isArray(cell)) together.append(...cell);
    holder.append(together);
    made.append(holder);
  });
  return made;
}

export function definitions(list, pairs) {
  const made = pairs.map(([term, value]) => {
    const group = element("div");
    const shown = element("dd");
    shown.append(value);
    group.append(element("dt", term), shown);
    return group;
  });
  replace(list, made);
}

export function replace(holder, children) {
  const made = document.createElement("div");
  made.append(...children);
  const same = made.childNodes.length === holder.childNodes.length
    && [...made.childNodes].every((child, index) => child.isEqualNode(holder.childNodes[index]));
  if (!same) holder.replaceChildren(...made.childNodes);
}
