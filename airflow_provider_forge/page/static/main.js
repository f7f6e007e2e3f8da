// Loads what Airflow knows of the exports, draws it, and keeps it up to date.

import * as api from "./api.js";
import { duration, element, isUtc, zone } from "./dom.js";
import { emptyState, refusedState } from "./empty.js";
import { heal, mayHeal } from "./heal.js";
import { drawMap } from "./heatmap.js";
import { Export, HOUR, QUARTER } from "./model.js";
import { drawExports, drawGaps, drawLateness, drawLegend, drawNow } from "./panels.js";

const REFRESH = 30_000;
const AT_ONCE = 3;

const by = (id) => document.getElementById(id);
let exports = [];
/** Checks whose result cannot be read, with the reason. */
const unread = [];
let selected = null;
/** Whether the user may heal, by DAG; absent until it is known. */
const rights = new Map();

async function load() {
  const [checks, dags] = await Promise.all([api.latestChecks(), api.forgeDags()]);
  // The first few exports need no further request when they are selected.
  const documents = await Promise.all(checks.slice(0, AT_ONCE).map(documentOf));
  for (const check of checks.slice(AT_ONCE)) documents.push(await documentOf(check));
  if (unread.length && unread.length === checks.length) throw unread[0].refusal;
  exports = documents.flatMap((found, number) => (found ? [new Export(found, checks[number], dags)] : []));
  exports.sort((one, other) => one.dagId.localeCompare(other.dagId));
  return dags;
}

/** The document of a check; null if it cannot be read, which must not hide the others. */
async function documentOf(check) {
  try {
    return await api.coverageOf(check);
  } catch (refusal) {
    unread.push({ check, refusal });
    return null;
  }
}

function notes() {
  return unread.map(({ check, refusal }) =>
    element("p", { class: "panel" }, `Not shown: ${check.dag_id}, task ${check.task_id}: ${refusal.message}.`),
  );
}

async function start() {
  by("zone").textContent = isUtc ? "Times in UTC" : `Times in ${zone}, with UTC beside`;
  drawLegend(by("legend"));
  drawPlaceholder();
  try {
    const dags = await load();
    if (!exports.length) return showState(await emptyState(dags));
    select(exports.find((each) => each.key === decodeURIComponent(location.hash.slice(1))) ?? exports[0]);
    setInterval(() => document.hidden || refresh(), REFRESH);
  } catch (refusal) {
    showState(refusedState(refusal));
  }
}

/** Draw all panels without figures, of the size of the real ones: nothing moves when those come. */
function drawPlaceholder() {
  const now = Date.now();
  const all = (value) => new Array(1344).fill(value);
  const placeholder = new Export(
    {
      dag_id: "the export",
      checked_at: new Date(now).toISOString(),
      start: new Date(Math.floor(now / QUARTER) * QUARTER - 1344 * QUARTER).toISOString(),
      expire_after: 1344 * 900,
      cells: "p".repeat(1344),
      points: all(0),
      minutes: all(null),
      attempts: all(0),
      environments: ["…"],
      receiver: "…",
      provider: "…",
      calls: [5, 60],
      budget: { used: 0, live: 0, backfill: 0, paused: 0 },
      lateness: { advice: "…" },
    },
    { dag_id: "…", run_id: "…" },
    [],
  );
  drawNow(by("now"), placeholder, now);
  drawMap(by("map"), placeholder);
  drawLateness(by("lateness"), placeholder);
  by("export").hidden = false;
}

function showState(state) {
  by("export").hidden = true;
  by("exports").replaceChildren();
  by("message").replaceChildren(state);
}

function select(exported) {
  selected = exported;
  history.replaceState(null, "", `#${encodeURIComponent(exported.key)}`);
  by("export").classList.remove("loading");
  draw();
  refresh();
}

function draw() {
  const now = Date.now();
  drawExports(by("exports"), exports, selected, select);
  drawNow(by("now"), selected, now);
  by("days-title").textContent = `Last ${duration(selected.document.expire_after * 1000)}`;
  drawMap(by("map"), selected);
  drawGaps(by("gaps"), selected, now, rights.get(selected.dagId) ? startHealing : null);
  drawLateness(by("lateness"), selected);
}

/** Ask what runs have done since the check, and whether the user may heal. */
async function refresh() {
  const exported = selected;
  try {
    // The calls of an hour are shown, too.
    const since = new Date(Math.min(exported.checkedAt, Date.now() - HOUR));
    exported.update(await api.runsSince(exported.dagId, since));
    const [gap] = exported.gaps();
    if (gap && !rights.has(exported.dagId)) rights.set(exported.dagId, await mayHeal(exported, gap));
    by("message").replaceChildren(...notes());
  } catch (refusal) {
    by("message").replaceChildren(element("p", { class: "panel" }, `Not up to date: ${refusal.message}.`));
  }
  if (exported === selected) draw();
}

function startHealing(gaps) {
  heal(selected, gaps, { onchange: refresh, onend: reload });
}

async function reload() {
  const { key } = selected;
  await load();
  select(exports.find((each) => each.key === key) ?? exports[0]);
}

start();
