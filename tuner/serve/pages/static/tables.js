// Tables: sorted by buttons in their heads, filtered by words, and drawn a part at a time, so that thousands of rows stay fluent.
import { counted, el } from "./elements.js";

const natural = new Intl.Collator("en", { numeric: true });

/** Replace the content of an element, and keep the focus on the control of the same `data-act` in the same `data-row`. */
export function redrawn(place, ...children) {
  const active = place.contains(document.activeElement) ? document.activeElement : null;
  const [act, row] = [active?.dataset.act, active?.closest("[data-row]")?.dataset.row];
  place.replaceChildren(...children);
  if (!act) return;
  const again = [...place.querySelectorAll("[data-act]")].find(
    (each) => each.dataset.act === act && each.closest("[data-row]")?.dataset.row === row);
  again?.focus({ preventScroll: true });
}

export class Table {
  #rows = [];
  #first = 0;
  #sorted;
  #parts = {};

  /**
   * @param {HTMLElement} place
   * @param {object} options
   * @param {string} options.title - what the table has, for readers that do not see it
   * @param {Array<{title: string, isUnnamed?: boolean, isNumber?: boolean, key?: function(any): (number|string|null), cell: function(any): (Node|string|null)}>} options.columns
   *   `key` is what rows are sorted by; without it the column cannot be sorted by; of an unnamed column only readers that listen get the title
   * @param {function(any): string} options.idOf - what stays the same of a row
   * @param {string} options.noun - "trial"; its plural is `nouns`, or has an s
   * @param {string} [options.empty] - said if there are no rows
   * @param {number} [options.most] - rows that are drawn at one time
   * @param {boolean} [options.hasFilter]
   * @param {function(any): string} [options.textOf] - what the filter looks at; else the texts of all cells
   * @param {function(any): string} [options.classOf] - class of a row
   * @param {{column: number, sign: number}} [options.sorted] - how rows are sorted first; else they stay as they are given
   */
  constructor(place, options) {
    this.options = { nouns: `${options.noun}s`, most: 100, hasFilter: false, empty: "", classOf: () => "", ...options };
    this.#sorted = options.sorted ?? null;
    const heads = options.columns.map((column, i) => el(`th${column.isNumber ? ".n" : ""}`, { scope: "col" },
      column.key ? el("button", { type: "button", click: () => this.#sortBy(i) }, column.title) : el(`span${column.isUnnamed ? ".unseen" : ""}`, {}, column.title)));
    const body = el("tbody");
    const scroll = el("div.scroll.framed", { tabindex: "0", role: "region", "aria-label": options.title },
      el("table.rows", {}, el("thead", {}, el("tr", {}, heads)), body));
    const input = el("input", { type: "search", autocomplete: "off", spellcheck: "false", input: () => this.#show(0) });
    const output = el("output", { "aria-live": "polite" });
    const filter = el("p.filter", { hidden: !this.options.hasFilter }, el("label", {}, "Filter ", input), output);
    const pager = el("p.pager", { hidden: true });
    const empty = el("p.says", { hidden: true }, this.options.empty);
    this.#parts = { heads, body, scroll, input, output, pager, empty, drawn: new Map() };
    place.replaceChildren(filter, empty, scroll, pager);
    this.#mark();
  }

  /** Show these rows; those that are equal to before are left as they are. */
  set(rows) {
    this.#rows = rows;
    this.#show(this.#first);
  }

  #sortBy(column) {
    const isSame = this.#sorted?.column === column;
    this.#sorted = { column, sign: isSame ? -this.#sorted.sign : 1 };
    this.#mark();
    this.#show(0);
  }

  #mark() {
    this.#parts.heads.forEach((head, i) => {
      if (this.#sorted?.column === i) head.setAttribute("aria-sort", this.#sorted.sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  #chosen() {
    const { columns, textOf } = this.options;
    const words = this.#parts.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const textIn = textOf ?? ((row) => columns.map((column) => column.key?.(row) ?? "").join(" "));
    let rows = this.#rows;
    if (words.length) rows = rows.filter((row) => { const text = textIn(row).toLowerCase(); return words.every((word) => text.includes(word)); });
    const key = this.#sorted && columns[this.#sorted.column].key;
    if (!key) return rows;
    const { sign } = this.#sorted;
    const keys = ranked(rows.map(key));
    return rows.map((row, i) => [keys[i], row]).sort(([a], [b]) => compared(a, b, sign)).map(([, row]) => row);
  }

  #show(first) {
    const { options } = this;
    const { body, drawn, empty, output, pager, scroll } = this.#parts;
    const rows = this.#chosen();
    this.#first = first < rows.length ? first : 0;
    const page = rows.slice(this.#first, this.#first + options.most);
    const before = new Map(drawn);
    drawn.clear();
    for (const row of page) {
      const id = options.idOf(row);
      const text = JSON.stringify(row);
      const old = before.get(id);
      drawn.set(id, old?.text === text ? old : { text, element: this.#drawn(row, id) });
    }
    const wanted = [...drawn.values()].map((each) => each.element);
    if (wanted.length !== body.rows.length || wanted.some((element, i) => element !== body.rows[i])) redrawn(body, ...wanted);
    empty.hidden = this.#rows.length > 0 || !options.empty;
    scroll.hidden = this.#rows.length === 0 && Boolean(options.empty);
    output.textContent = `${counted(rows.length)} of ${counted(this.#rows.length)} ${this.#rows.length === 1 ? options.noun : options.nouns}`;
    this.#page(rows.length, pager);
  }

  #drawn(row, id) {
    const { classOf, columns } = this.options;
    const className = classOf(row);
    return el(`tr${className ? `.${className.split(" ").join(".")}` : ""}`, { "data-row": id }, columns.map((column, i) =>
      el(`${i ? "td" : "th"}${column.isNumber ? ".n" : ""}`, i ? {} : { scope: "row" }, column.cell(row))));
  }

  #page(count, pager) {
    const { most } = this.options;
    pager.hidden = count <= most;
    if (pager.hidden) return;
    const button = (text, first, act) => el("button", { type: "button", "data-act": act, disabled: first < 0 || first >= count, click: () => this.#show(first) }, text);
    redrawn(pager, button("Previous", this.#first - most, "previous"),
      el("span", {}, `${counted(this.#first + 1)} to ${counted(Math.min(count, this.#first + most))} of ${counted(count)}`),
      button("Next", this.#first + most, "next"));
  }
}

/** Return keys with numbers for texts, in the order of the texts: of thousands of rows few differ, and comparing texts is slow. */
function ranked(keys) {
  const texts = [...new Set(keys.filter((each) => typeof each === "string"))].sort(natural.compare);
  const ranks = new Map(texts.map((text, i) => [text, i]));
  return keys.map((each) => ranks.get(each) ?? each);
}

/** Compare two keys; those without a value are last, whatever the order. */
function compared(a, b, sign) {
  const [isNone, isOther] = [a === null || a === undefined, b === null || b === undefined];
  return isNone || isOther ? isNone - isOther : sign * (a - b);
}
