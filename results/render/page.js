// Sorting by a column of numbers: best first, worst first, as written.  The page reads the same without it.
for (const table of document.querySelectorAll("table.results")) {
  const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
  const headers = [...table.querySelectorAll("th[data-sort]")];

  function spreadGroups() {
    // A label that spans rows cannot stay where it is when its rows part.
    for (const label of table.querySelectorAll("tbody th[rowspan]")) {
      let row = label.parentElement;
      for (let left = label.rowSpan - 1; left > 0; left--) {
        row = row.nextElementSibling;
        row.prepend(label.cloneNode(true));
        row.firstElementChild.removeAttribute("rowspan");
      }
      label.removeAttribute("rowspan");
    }
  }

  function value(row, column) {
    let place = 0;
    for (const cell of row.cells) {
      if (place === column) return Number.parseFloat((cell.dataset.value ?? "").replace(/^(-?)inf$/, "$1Infinity"));
      place += cell.colSpan;
    }
    return NaN;
  }

  function sort(header, order) {
    spreadGroups();
    const leading = table.querySelector("thead tr").querySelectorAll("[rowspan]").length;
    const column = leading + [...header.parentElement.cells].indexOf(header);
    const sign = order === "none" ? 0 : order === "descending" ? -1 : 1;
    for (const [body, rows] of bodies) {
      const titles = rows.filter((row) => row.classList.contains("section"));
      const others = rows.filter((row) => !row.classList.contains("section"));
      const known = (row) => !Number.isNaN(value(row, column));
      const compare = (a, b) => known(b) - known(a) || (known(a) ? sign * (value(a, column) - value(b, column)) : 0);
      body.append(...titles, ...(sign ? others.toSorted(compare) : others));
    }
    for (const other of headers) other.removeAttribute("aria-sort");
    if (sign) header.setAttribute("aria-sort", order);
  }

  for (const header of headers) {
    const orders = header.dataset.sort === "up" ? ["descending", "ascending"] : ["ascending", "descending"];
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const next = [...orders, "none"][orders.indexOf(header.getAttribute("aria-sort")) + 1];
      sort(header, next);
    });
  }
}
