"use strict";
// The tables of a page: sorted by a column, filtered by a text, and as CSV.
(() => {
  // So few rows need no filter.
  const GLANCE = 6;
  const content = (cell) => cell.dataset.value ?? cell.textContent;

  const compare = (column, sign) => (row, next) => {
    const [a, b] = [row.cells[column], next.cells[column]];
    // What is not known comes last either way.
    if (content(a) === "" || content(b) === "") return (content(a) === "") - (content(b) === "");
    if (a.dataset.value === undefined) return sign * content(a).localeCompare(content(b), undefined, { numeric: true });
    return sign * (Number(content(a)) - Number(content(b)));
  };

  const sortable = ({ tHead, tBodies: [body] }) => {
    [...tHead.rows[0].cells].forEach((head, column, all) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of all) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        body.append(...[...body.rows].sort(compare(column, falling ? -1 : 1)));
      });
    });
  };

  for (const table of document.querySelectorAll(".scroll table")) if (table.tHead) sortable(table);

  // What scrolls says so, on whatever screen.
  const sizes = new ResizeObserver((seen) => {
    for (const { target: box } of seen) {
      const [aside, down] = [box.scrollWidth > box.clientWidth + 1, box.scrollHeight > box.clientHeight + 1];
      const said = box.previousElementSibling;
      said.hidden = !aside && !down;
      const more = [...(aside ? ["more columns to the right"] : []), ...(down ? ["more rows below"] : [])];
      said.textContent = `Scroll the table: it has ${more.join(" and ")}.`;
    }
  });
  for (const box of document.querySelectorAll(".scroll")) {
    const said = document.createElement("p");
    said.className = "hint scrolls";
    said.hidden = true;
    box.before(said);
    sizes.observe(box);
  }

  const filter = (rows, query, count) => {
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(query);
    count.textContent = query ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
  };

  // A spreadsheet takes a cell that begins with one of these for a formula.
  const field = (text, isNumber) => {
    const safe = !isNumber && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  const download = ({ tHead, tBodies: [body] }) => {
    const lines = [[...tHead.rows[0].cells].map((head) => head.dataset.name)];
    for (const row of body.rows) {
      if (!row.hidden) lines.push([...row.cells].map((cell) => field(content(cell), cell.dataset.value !== undefined)));
    }
    const text = lines.map((line) => `${line.join(",")}\r\n`).join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = `statesize-${location.pathname.split("/").pop().replace(/\.\w+$/, "")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  for (const form of document.querySelectorAll(".tools")) {
    const [table, search] = [form.closest("section").querySelector("table"), form.querySelector("input")];
    const rows = [...table.tBodies[0].rows];
    if (rows.length <= GLANCE) search.parentElement.remove();
    search.addEventListener("input", () => filter(rows, search.value.trim().toLowerCase(), form.querySelector("output")));
    form.querySelector("button").addEventListener("click", () => download(table));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  }

  // Paper shows what is folded, and a link opens what it leads to.
  const open = (folded) => { for (const details of folded) details.open = true; };
  addEventListener("beforeprint", () => open(document.querySelectorAll("details:not(#chosen)")));
  addEventListener("hashchange", () => open([drawing.byId(location.hash.slice(1))?.closest("details") ?? {}]));
})();
