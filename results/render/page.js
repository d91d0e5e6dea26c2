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

// Shades at the sides of what is wider than the page, while there is more to see there.
for (const box of document.querySelectorAll(".scroll, .drawing")) {
  const shade = () => {
    box.classList.toggle("more-left", box.scrollLeft > 1);
    box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  };
  box.addEventListener("scroll", shade, { passive: true });
  new ResizeObserver(shade).observe(box);
}

// Two pictures of one view, one over the other, with a slider between them.
for (const gallery of document.querySelectorAll(".gallery")) {
  const pictures = [...gallery.querySelectorAll(".strip li")];
  const names = (key) => [...new Set(pictures.map((item) => item.dataset[key]))];
  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const select = (text, options, chosen) => {
    const list = element("select", {}, ...options.map((name) => element("option", { value: name }, name)));
    list.value = chosen;
    return [list, element("label", {}, `${text} `, list)];
  };
  const rows = names("row");
  if (rows.length < 2) continue;
  const [object, objectLabel] = select("Object", names("object"), names("object")[0]);
  const [view, viewLabel] = select("View", names("view"), names("view")[0]);
  const [left, leftLabel] = select("Left", rows, rows[0]);
  const [right, rightLabel] = select("Right", rows, rows[1]);
  const under = element("img", {});
  const over = element("img", { className: "over" });
  const slider = element("input", { type: "range", min: 0, max: 100, value: 50 });
  const stage = element("div", { className: "stage" }, under, over);

  function show() {
    for (const [image, row] of [[over, left.value], [under, right.value]]) {
      const own = (item) =>
        item.dataset.object === object.value && item.dataset.view === view.value && item.dataset.row === row;
      const shown = pictures.find(own)?.querySelector("img");
      if (shown) Object.assign(image, { src: shown.src, alt: shown.alt });
    }
    slide();
  }

  function slide() {
    stage.style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left.value}, ${100 - slider.value} % ${right.value}`);
  }

  for (const list of [object, view, left, right]) list.addEventListener("change", show);
  slider.addEventListener("input", slide);
  const choices = element("div", { className: "choices" }, objectLabel, viewLabel, leftLabel, rightLabel);
  const sliderLabel = element("label", { className: "slider" }, "From left to right ", slider);
  gallery.append(
    element("details", { className: "compare" }, element("summary", {}, "Compare two rows with a slider"), choices, stage, sliderLabel),
  );
  show();
}
