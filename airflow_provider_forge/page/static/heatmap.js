// The map of the last 14 days: a column a day, a square a quarter hour, or an hour on a narrow screen.

import { openRunOf } from "./runs.js";
import { element, isUtc, localTime, number, plural, time } from "./dom.js";
import { DAY, HOUR, QUARTER, STATUSES, rowsOf, worst } from "./model.js";

const NARROW = matchMedia("(max-width: 700px)");
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "short", timeZone: "UTC" });

let shown = null;

/** Draw the map of an export, keeping the focus where it is. */
export function drawMap(container, exported) {
  shown = { container, exported };
  const { days, rows } = rowsOf(exported.cells, NARROW.matches ? HOUR : QUARTER);
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.at : null;
  const grid = element("div", {
    role: "grid",
    class: "grid",
    "aria-label": `Windows of ${exported.dagId}, a column a day in UTC. Arrow keys move, Enter opens the run`,
    "aria-rowcount": rows.length + 1,
    "aria-colcount": days.length + 1,
    onkeydown: (event) => move(event, grid),
    onfocusin: (event) => showTip(event.target),
    onfocusout: hideTip,
    onpointerover: (event) => showTip(event.target),
    onpointerleave: hideTip,
    onclick: (event) => open(event.target, exported),
  });
  grid.style.setProperty("--days", days.length);
  grid.append(heading(days), ...rows.map((row) => drawRow(row, days)));
  const squares = grid.querySelectorAll("[data-at]");
  const target = [...squares].find((square) => square.dataset.at === focused);
  (target ?? squares[squares.length - 1])?.setAttribute("tabindex", "0");
  container.replaceChildren(grid);
  if (target) target.focus();
}

NARROW.addEventListener("change", () => shown && drawMap(shown.container, shown.exported));

function heading(days) {
  const corner = element("span", { role: "columnheader", class: "hours" }, isUtc ? "UTC" : "UTC / you");
  const names = days.map((day) =>
    element(
      "span",
      { role: "columnheader", class: "day", "aria-label": day.toISOString().slice(0, 10) },
      element("span", { class: "weekday" }, WEEKDAY.format(day)),
      element("span", {}, String(day.getUTCDate())),
    ),
  );
  return element("div", { role: "row", class: "row heading" }, corner, ...names);
}

function drawRow({ offset, squares }, days) {
  const full = offset % HOUR === 0;
  const utcTime = new Date(offset).toISOString().slice(11, 16).replace(":00", "");
  const here = localTime(new Date(+days.at(-1) + offset));
  const label = element(
    "span",
    { role: "rowheader", class: "hours", "aria-label": isUtc ? `${utcTime} h UTC` : `${utcTime} h UTC, ${here} h here` },
    full && offset % (2 * HOUR) === 0 ? (isUtc ? utcTime : `${utcTime} / ${here}`) : "",
  );
  const row = element("div", { role: "row", class: full ? "row full" : "row" }, label);
  row.append(...squares.map((cells, column) => drawSquare(cells, +days[column] + offset)));
  return row;
}

function drawSquare(cells, at) {
  if (!cells.length) return element("span", { role: "gridcell", class: "none", "aria-label": "Outside of the 14 days" });
  const letter = worst(cells);
  const square = element("span", {
    role: "gridcell",
    class: `square ${classOf(letter)}`,
    tabindex: "-1",
    "aria-label": describe(cells, letter).join(". "),
    "data-at": at,
  });
  square.cells = cells;
  square.letter = letter;
  return square;
}

/** The class of a letter; those of what is lost soon are doubled, because classes do not tell capitals. */
export function classOf(letter) {
  return letter === letter.toLowerCase() ? `is-${letter}` : `is-${letter.toLowerCase()}${letter.toLowerCase()}`;
}

function describe(cells, letter) {
  const points = cells.reduce((sum, cell) => sum + cell.points, 0);
  const attempts = Math.max(...cells.map((cell) => cell.attempts));
  const lines = [
    `${time(cells[0].start)} to ${cells.at(-1).end.toISOString().slice(11, 16)}`,
    cells.length > 1 ? countsOf(cells) : STATUSES[letter].name,
  ];
  if (points) lines.push(plural(points, "point"));
  // An empty window has no last points: its time is that of its fetch.
  const told = points ? cells.filter((cell) => cell.points) : cells;
  const minutes = told.map((cell) => cell.minutes).filter((each) => each != null);
  if (minutes.length) lines.push(`${points ? "Last points" : "Fetched"} ${number(Math.max(...minutes))} min after its end`);
  if (attempts) lines.push(plural(attempts, "attempt"));
  return lines;
}

function countsOf(cells) {
  const counts = new Map();
  for (const { letter } of cells) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  return [...counts].map(([letter, count]) => `${count} × ${STATUSES[letter].name.toLowerCase()}`).join(", ");
}

function showTip(target) {
  const tip = document.getElementById("tip");
  if (!target.cells) return hideTip();
  tip.replaceChildren(...describe(target.cells, target.letter).map((line) => element("p", {}, line)));
  tip.hidden = false;
  const box = target.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = box.bottom + 6;
  const fits = below + tip.offsetHeight < innerHeight;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(fits ? below : box.top - tip.offsetHeight - 6) + scrollY}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}

const STEPS = { ArrowUp: -QUARTER, ArrowDown: QUARTER, ArrowLeft: -DAY, ArrowRight: DAY };

function move(event, grid) {
  const current = event.target;
  if (!current.cells) return;
  if (event.key === "Enter" || event.key === " ") current.click();
  else if (event.key === "Escape") hideTip();
  else if (!moveTo(event.key, current, grid)) return;
  event.preventDefault();
}

function moveTo(key, current, grid) {
  const squares = [...grid.querySelectorAll("[data-at]")];
  let target = null;
  if (key === "Home") target = squares[0];
  else if (key === "End") target = squares.at(-1);
  else if (key in STEPS) {
    const factor = current.cells.length > 1 || NARROW.matches ? HOUR / QUARTER : 1;
    const step = Math.abs(STEPS[key]) === DAY ? STEPS[key] : STEPS[key] * factor;
    target = squares.find((square) => +square.dataset.at === +current.dataset.at + step);
  } else return false;
  if (target) {
    current.setAttribute("tabindex", "-1");
    target.setAttribute("tabindex", "0");
    target.focus();
  }
  return true;
}

function open(target, exported) {
  if (target.cells) openRunOf(exported, target.cells.find((cell) => cell.letter === target.letter) ?? target.cells[0]);
}
