"use strict";

// Charts: drawn from the data in the page, in SVG, so that text and lines take the page's colours.
const charts = JSON.parse(document.getElementById("charts").textContent);
const drawn = [...document.querySelectorAll("[data-chart]")].map((place) =>
  vegaEmbed(place, charts[place.dataset.chart], { renderer: "svg", actions: false, tooltip: { theme: "page" } })
);
Promise.all(drawn).then(() => document.body.classList.add("drawn"));

// Tables: a click on a head sorts by that column, another one the other way round. What is empty stays last.
function compare(one, other) {
  if (one === "" || other === "") return (one === "") - (other === "");
  const [x, y] = [Number(one), Number(other)];
  return Number.isNaN(x) || Number.isNaN(y) ? one.localeCompare(other) : x - y;
}

function sort(table, index, head) {
  const body = table.tBodies[0];
  const descending = head.ariaSort === "ascending" || (head.ariaSort === null && head.classList.contains("number"));
  const down = head.ariaSort === "descending" ? false : descending;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.ariaSort = down ? "descending" : "ascending";
  table.classList.add("sorted");
  for (const name of table.querySelectorAll("th[rowspan]")) name.removeAttribute("rowspan");
  const key = (row) => row.cells[index].dataset.sort;
  const rows = [...body.rows].sort((a, b) =>
    down && key(a) !== "" && key(b) !== "" ? compare(key(b), key(a)) : compare(key(a), key(b))
  );
  body.append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, index) =>
    head.querySelector("button").addEventListener("click", () => sort(table, index, head))
  );
}

// Light or dark: the system's, until the reader chooses.
const theme = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
const label = () => (theme.textContent = isDark() ? "Light" : "Dark");
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  label();
});
prefersDark.addEventListener("change", label);
theme.hidden = false;
label();

// A chart in a closed fold has no width to take; it takes it when the fold opens.
for (const fold of document.querySelectorAll("details")) {
  fold.addEventListener("toggle", () => dispatchEvent(new Event("resize")));
}

// Print: on white, with everything open.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.closed = "";
  }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-closed]")) {
    fold.open = false;
    delete fold.dataset.closed;
  }
});
