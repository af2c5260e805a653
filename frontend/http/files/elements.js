// Elements and tables, for all pages.
"use strict";

function add(parent, tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  parent.append(element);
  return element;
}

function fill(table, columns, rows) {
  table.replaceChildren();
  if (columns.length) {
    const head = add(table, "tr");
    for (const [name, kind] of columns) add(head, "th", name, kind || "");
  }
  for (const row of rows) {
    const line = add(table, "tr");
    row.forEach((cell, place) => {
      const data = add(line, "td", typeof cell === "string" ? cell : "", (columns[place] || [])[1] || "");
      if (typeof cell !== "string") data.append(cell);
    });
  }
}
