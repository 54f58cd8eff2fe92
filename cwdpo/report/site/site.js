// What pages can do beyond showing: sort and filter rows, show more of each value, hide lines, order a gallery.
// Without it everything is there to read.
"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const words = text => text.toLowerCase().split(/\s+/).filter(Boolean);
const has = (text, wanted) => wanted.every(word => text.includes(word));

// What a filter looks at: text in lower case, without the parts that a selector finds.
function seen(node, unseen) {
  if (node.nodeType === Node.TEXT_NODE) return node.data.toLowerCase();
  if (node.nodeType !== Node.ELEMENT_NODE || node.matches(unseen)) return "";
  return [...node.childNodes].map(child => seen(child, unseen)).join(" ");
}

// ---- tables

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = all("th[data-by]", table.tHead);
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = next(head);
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      table.classList.toggle("sorted", order !== "none");
      body.append(...(order === "none" ? original : sorted(original, head, order)));
    });
  }
}

// Best first, worst first, then as the table was.
function next(head) {
  const first = head.dataset.first || "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  return { none: first, [first]: second, [second]: "none" }[head.getAttribute("aria-sort")];
}

// Rows without a value come last, whatever the order; equal ones keep theirs.
function sorted(rows, head, order) {
  const place = head.cellIndex;
  const sign = order === "ascending" ? 1 : -1;
  if (head.dataset.by === "number") {
    const value = new Map(rows.map(row => [row, parseFloat(row.cells[place].dataset.sort)]));
    return [...rows].sort((a, b) => {
      const [one, other] = [value.get(a), value.get(b)];
      if (isNaN(one) || isNaN(other)) return isNaN(one) - isNaN(other);
      return sign * (one - other);
    });
  }
  const collator = new Intl.Collator("en", { numeric: true });
  const text = new Map(rows.map(row => [row, row.cells[place].textContent.trim()]));
  return [...rows].sort((a, b) => sign * collator.compare(text.get(a), text.get(b)));
}

function filterable(section, table) {
  const input = section.querySelector("input[type=search]");
  const shown = section.querySelector(".shown");
  const rows = [...table.tBodies[0].rows];
  const boxes = all("input[data-show]", section);
  let texts;
  const apply = () => {
    const wanted = words(input.value);
    for (const row of rows) row.hidden = !has(texts.get(row), wanted);
    shown.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
  };
  // A row must not be found by what nobody sees: labels for screen readers, and what boxes have not asked for.
  const read = () => {
    const off = boxes.filter(box => !box.checked).map(box => `.more.${box.dataset.show}`);
    const unseen = [".hidden", "a.note", ...off].join();
    texts = new Map(rows.map(row => [row, seen(row, unseen)]));
    apply();
  };
  input.addEventListener("input", apply);
  for (const box of boxes) box.addEventListener("change", read);
  read();
}

for (const section of all("section.table")) {
  const table = section.querySelector("table");
  sortable(table);
  filterable(section, table);
  for (const box of all("input[data-show]", section)) {
    const apply = () => table.classList.toggle(`no-${box.dataset.show}`, !box.checked);
    box.addEventListener("change", apply);
    apply();
  }
  section.querySelector(".controls").hidden = false;
}

// ---- curves

for (const section of all("section.curves")) {
  for (const button of all(".legend button", section)) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      for (const line of all(`.chart [data-line="${button.dataset.line}"]`, section)) line.classList.toggle("off", !on);
    });
  }
}

// ---- gallery

const controls = document.querySelector(".controls.gallery");
if (controls) {
  const list = document.querySelector(".items");
  const items = [...list.children];
  const shown = controls.querySelector(".shown");
  const search = controls.querySelector("input[type=search]");
  let texts;
  const filter = () => {
    const wanted = words(search.value);
    for (const item of items) item.hidden = !has(texts.get(item), wanted);
    shown.textContent = `${items.filter(item => !item.hidden).length} of ${items.length} items`;
  };
  // Items are found by what was asked and answered, not by words that every item has, nor by answers left out.
  const unseen = ".hidden, .answers > [hidden], .answers dt, .worth, .reference .name, summary";
  const read = () => {
    texts = new Map(items.map(item => [item, seen(item.querySelector(".said"), unseen)]));
    filter();
  };
  search.addEventListener("input", filter);
  const value = (item, method) => parseFloat(item.querySelector(`[data-method="${method}"]`).dataset.sort);
  const order = controls.querySelector("select");
  order.addEventListener("change", () => list.append(...ordered(items, order.value, value)));
  for (const box of all("input[data-method]", controls)) {
    box.addEventListener("change", () => {
      for (const answer of all(`.answers [data-method="${box.dataset.method}"]`)) answer.hidden = !box.checked;
      read();
    });
  }
  read();
  controls.hidden = false;
}

function ordered(items, by, value) {
  if (by === "differ") return items;
  if (by === "id") {
    const collator = new Intl.Collator("en", { numeric: true });
    return [...items].sort((a, b) => collator.compare(a.dataset.id, b.dataset.id));
  }
  const [way, method] = by.split(":");
  const sign = way === "low" ? 1 : -1;
  return [...items].sort((a, b) => {
    const [one, other] = [value(a, method), value(b, method)];
    if (isNaN(one) || isNaN(other)) return isNaN(one) - isNaN(other);
    return sign * (one - other);
  });
}

// ---- print: what is folded is opened, but for what is not printed, and folded again

let opened = [];
window.addEventListener("beforeprint", () => {
  opened = all("details:not([open], .charts details)");
  for (const one of opened) one.open = true;
});
window.addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});
