"use strict";
// The table: sorted by buttons in its heads, filtered by words.
(() => {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const numbers = new Intl.Collator("en", { numeric: true });

  function compare(a, b, column, sign) {
    const [one, other] = [a.cells[column], b.cells[column]];
    const [x, y] = [one.dataset.key, other.dataset.key];
    if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1; // cells without a value are last
    return sign * numbers.compare(one.textContent, other.textContent);
  }

  function sort(column) {
    const head = heads[column];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => compare(a, b, column, sign)));
  }
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => sort(column));
    if ([...body.rows].some((row) => row.cells[column].classList.contains("n"))) head.classList.add("n");
  });

  const filter = document.getElementById("filter");
  const output = document.querySelector("output");
  filter.closest(".filter").hidden = false;
  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = [...row.cells].map((cell) => cell.title || cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    output.textContent = `${count} of ${body.rows.length} trials`;
  }
  filter.addEventListener("input", show);
  show();
})();
