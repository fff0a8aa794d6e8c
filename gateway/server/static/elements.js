// Find, create and update elements. Only differences are changed, so that nothing flickers and selections stay.

import { NONE } from "./format.js";

export const find = (id) => document.getElementById(id);

export function make(name, { className = "", text = "", ...attributes } = {}, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, className) {
  if (element.className !== className) element.className = className;
}

// Keep the children of an element in sync with a list: one child per item, identified by its key, in the order of the list.
export class Children {
  #parent;
  #make;
  #update;
  #known = new Map();

  // `make(item)` returns a new child, `update(child, item)` updates it.
  constructor(parent, make, update) {
    this.#parent = parent;
    this.#make = make;
    this.#update = update;
  }

  show(items, keyOf) {
    const wanted = new Map(items.map((item) => [String(keyOf(item)), item]));
    for (const [key, child] of this.#known) {
      if (!wanted.has(key)) {
        child.remove();
        this.#known.delete(key);
      }
    }
    let place = this.#parent.firstElementChild;
    for (const [key, item] of wanted) {
      let child = this.#known.get(key);
      if (child === undefined) {
        child = this.#make(item);
        this.#known.set(key, child);
      }
      this.#update(child, item);
      if (child === place) place = place.nextElementSibling;
      else this.#parent.insertBefore(child, place);
    }
  }
}

// A table whose rows follow a list. On narrow screens each row is a card, so roles are explicit and each cell has its column's name.
export class Table {
  #columns;
  #rows;

  // Each column has a `name`, a `className` and `show(cell, item)`.
  constructor(table, columns) {
    this.#columns = columns;
    const head = make("tr", { role: "row" });
    for (const { name, className = "", unseen = false } of columns) {
      const cell = make("th", { className, role: "columnheader", scope: "col" });
      cell.append(unseen ? make("span", { className: "unseen", text: name }) : name);
      head.append(cell);
    }
    const body = make("tbody", { role: "rowgroup" });
    table.append(make("thead", { role: "rowgroup" }, head), body);
    this.#rows = new Children(body, () => this.#makeRow(), (row, item) => this.#updateRow(row, item));
  }

  #makeRow() {
    const row = make("tr", { role: "row" });
    for (const { name, className = "", unseen = false } of this.#columns) {
      const cell = make("td", { className, role: "cell" });
      if (!unseen) cell.dataset.name = name;
      row.append(cell);
    }
    return row;
  }

  #updateRow(row, item) {
    this.#columns.forEach((column, index) => {
      const cell = row.children[index];
      column.show(cell, item);
      cell.classList.toggle("blank", cell.textContent === NONE);
    });
  }

  show(items, keyOf) {
    this.#rows.show(items, keyOf);
  }
}
