"use strict";
/* Sorting: each head of a table that asks for it becomes a button. Without this the tables are as they stand. */
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0], rows = [...body.rows], told = document.getElementById("sorted");
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, at) => { const cell = row.cells[at]; return cell.dataset.sort ?? cell.textContent.trim(); };
  const order = (at) => (first, second) => {
    const [a, b] = [key(first, at), key(second, at)];
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
    const numbers = a !== "" && !Number.isNaN(Number(a)) && !Number.isNaN(Number(b));
    return numbers ? Number(a) - Number(b) : a.localeCompare(b, "en");
  };
  heads.forEach((head, at) => {
    const button = document.createElement("button"), words = head.textContent.trim();
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const now = before === "descending" ? "ascending" : before === "ascending" ? "" : "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      let sorted = rows;
      if (now) {
        head.setAttribute("aria-sort", now);
        const empty = rows.filter((row) => key(row, at) === ""), full = rows.filter((row) => key(row, at) !== "");
        full.sort(order(at));
        if (now === "descending") full.reverse();
        sorted = [...full, ...empty];
      }
      body.append(...sorted);
      if (told) told.textContent = now ? `Sorted by ${words}, ${now}.` : "In the order of the report.";
    });
  });
}
/* On paper nothing is folded. */
let folded = [];
addEventListener("beforeprint", () => { folded = [...document.querySelectorAll("details:not([open])")]; folded.forEach((item) => { item.open = true; }); });
addEventListener("afterprint", () => { folded.forEach((item) => { item.open = false; }); });
