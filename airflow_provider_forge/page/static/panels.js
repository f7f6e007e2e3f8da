// The panels beside the map: now, gaps, lateness, and the row of exports.

import { airflowLink, duration, element, fill, isUtc, local, number, plural, time, utcRange } from "./dom.js";
import { classOf } from "./heatmap.js";
import { QUARTER, STATUSES, worst } from "./model.js";

const LEGEND = ["d", "l", "e", "h", "r", "f", "m", "M", "p"];

export function drawLegend(list) {
  list.replaceChildren(
    ...LEGEND.map((letter) =>
      element(
        "li",
        {},
        element("span", { class: `square ${classOf(letter)}`, "aria-hidden": "true" }),
        letter === "M" ? "Lost soon" : STATUSES[letter].name,
      ),
    ),
  );
}

/** Draw a button for each export, with the worst that there is to say about it. */
export function drawExports(nav, exports, selected, onselect) {
  nav.replaceChildren(
    ...exports.map((exported) => {
      const gaps = exported.gaps();
      const windows = gaps.reduce((sum, gap) => sum + gap.cells.length, 0);
      const letter = worst(exported.cells.filter((cell) => cell.letter !== "p"));
      return element(
        "button",
        { type: "button", "aria-current": exported === selected ? "page" : null, onclick: () => onselect(exported) },
        element("span", { class: `dot ${classOf(letter)}`, "aria-hidden": "true" }),
        element("strong", {}, nameOf(exported, exports)),
        element("span", { class: "quiet" }, windows ? `${plural(windows, "window")} missing` : stateOf(exported)),
      );
    }),
  );
}

/** What tells an export from the others: its DAG, its receiver, and the task that checks it, as far as needed. */
function nameOf({ dagId, document: { receiver }, check }, exports) {
  const ofDag = exports.filter((each) => each.dagId === dagId);
  if (ofDag.length === 1) return dagId;
  const isAlone = ofDag.filter((each) => each.document.receiver === receiver).length === 1;
  return `${dagId} to ${receiver}${isAlone ? "" : ` (${check.task_id})`}`;
}

function stateOf({ runs, document: { catchup } }) {
  if (runs?.retries) return `${plural(runs.retries, "task")} to be retried`;
  return catchup ? "Catching up" : "All delivered";
}

export function drawNow(section, exported, now) {
  const { document: found, check, dag, runs } = exported;
  const last = exported.lastDelivered();
  const today = exported.today(now);
  const facts = [
    [
      "Last delivered window",
      last ? `ended ${duration(now - last.end)} ago` : "none",
      last && time(last.end),
    ],
    ["Today, in UTC", `${today.delivered} of ${today.due} windows`, plural(today.points, "point")],
    ["Runs", ...runsNow(runs, exported.dagId)],
    ["Calls in the last hour", ...callsNow(exported, now)],
    ["Next run", ...nextRun(dag, now)],
    ["API token", ...token(found.token_days)],
    [
      "Last check",
      `${duration(now - exported.checkedAt)} ago${found.alerts ? `, with ${plural(found.alerts, "alert")}` : ""}`,
      airflowLink(
        `dags/${encodeURIComponent(check.dag_id)}/runs/${encodeURIComponent(check.run_id)}`,
        `Run of ${check.dag_id}`,
      ),
    ],
    ["Export", found.environments.join(", "), `To ${found.receiver}, version ${found.provider}`],
  ];
  fill(section, element("dl", {}, ...facts.map(fact)), ...leftOut(found));
}

/** Metrics that the gateway does not know. */
function leftOut({ left_out: labels }) {
  if (!labels?.length) return [];
  const text = `The gateway does not know ${labels.join(", ")}: left out, and tried again each day. All others are fetched.`;
  return [element("p", {}, text)];
}

function fact([name, value, more]) {
  return element(
    "div",
    {},
    element("dt", {}, name),
    element("dd", { class: "value" }, value),
    element("dd", { class: "quiet" }, more || " "),
  );
}

function runsNow(runs, dagId) {
  if (!runs) return ["…"];
  const { active, activeCount, retries } = runs;
  const running = active.filter((run) => run.state === "running").length;
  const backfill = active.filter((run) => run.run_type === "backfill").length;
  const waiting = activeCount - running;
  // Something does not answer: the log of such a task says what.
  const failing =
    retries && airflowLink(`dags/${encodeURIComponent(dagId)}/tasks/?state=up_for_retry`, `${plural(retries, "task")} to be retried`);
  return [
    `${number(running)} running, ${number(waiting)} waiting`,
    failing || (backfill ? `${plural(backfill, "run")} of a backfill` : ""),
  ];
}

function callsNow(exported, now) {
  const { document: found, runs } = exported;
  const [calls, seconds] = found.calls;
  return [`${runs ? `${number(exported.callsOfLastHour(now))} or more` : "…"} of ${number((calls * 3600) / seconds)}`, budgetThen(found)];
}

/** How much of the account's budget was used, and who waited for it, when the export was checked. */
function budgetThen({ budget, calls: [calls, seconds] }) {
  if (!budget) return "Runs of this DAG; the account's budget is shared";
  if (budget.paused) return `At the check: Atlassian asked for a pause of ${number(budget.paused)} s`;
  const waiting = [
    budget.live && `${number(budget.live)} live`,
    budget.backfill && `${number(budget.backfill)} backfill`,
  ].filter(Boolean);
  const used = `At the check: ${number(budget.used)} of ${number(calls)} in ${number(seconds)} s`;
  return `${used}; waiting: ${waiting.join(", ") || "none"}`;
}

function nextRun(dag, now) {
  if (!dag) return ["unknown", "The DAG has no tag “forge”"];
  const link = airflowLink(`dags/${encodeURIComponent(dag.dag_id)}`, dag.dag_id);
  if (dag.is_paused) return ["The DAG is paused", link];
  if (!dag.next_dagrun_run_after) return ["none planned", link];
  const next = new Date(dag.next_dagrun_run_after);
  return [next > now ? `in ${duration(next - now)}` : "due", time(next)];
}

function token(days) {
  if (days == null) return ["unknown", "Set token_expires_on in the Forge Connection"];
  return [days < 0 ? "expired" : `expires in ${plural(days, "day")}`, days < 31 ? "Create a new one" : ""];
}

/** Where a catchup is, and what it will do. */
function aheadOf({ document: { catchup, expire_after: seconds } }, now) {
  if (!catchup) return "";
  const oldest = new Date(now - seconds * 1000);
  const then =
    new Date(catchup) < oldest
      ? `skips the windows before ${time(oldest)}: they are too old to be delivered`
      : "delivers the windows after it, oldest first";
  return element("p", {}, `Catchup has come to ${time(new Date(catchup))}, and ${then}.`);
}

/** Draw the gaps; `heal` is called with some gaps, and null for users who may not start a backfill. */
export function drawGaps(section, exported, now, heal) {
  const gaps = exported.gaps();
  const ahead = aheadOf(exported, now);
  if (!gaps.length) {
    const none = exported.document.catchup ? "None so far." : "None. Every window that is due was delivered.";
    fill(section, element("p", {}, none), ahead);
    return;
  }
  // As in coverage/healing.py: while its last window has half an hour left.
  const lastExpires = (gap) => +gap.expires + (gap.end - gap.start) - QUARTER;
  const healable = gaps.filter((gap) => !exported.isAhead(gap) && lastExpires(gap) > now + 2 * QUARTER);
  const all =
    heal && healable.length > 1
      ? element("button", { type: "button", onclick: () => heal(healable) }, "Heal all gaps")
      : null;
  const list = gaps.slice(0, 50).map((gap) => drawGap(gap, exported, now, heal && healable.includes(gap) ? heal : null));
  const more = gaps.length > 50 ? element("p", { class: "quiet" }, `and ${gaps.length - 50} more`) : null;
  const actions = element("p", { class: "actions" }, all);
  fill(section, ahead, element("ul", { class: "gaps" }, ...list), more ?? "", actions);
}

function drawGap(gap, exported, now, heal) {
  const left = gap.expires - now;
  const soon = "FM".includes(gap.cells[0].letter);
  const state = exported.isAhead(gap)
    ? "The schedule has yet to come to it"
    : left > 0
      ? `Lost in ${duration(left)}`
      : "Its first window is lost";
  const label = `Heal the gap of ${plural(gap.cells.length, "window")} from ${time(gap.start)}`;
  return element(
    "li",
    { class: soon ? "soon" : null },
    element(
      "div",
      {},
      element("strong", {}, isUtc ? utcRange(gap.start, gap.end) : `${local(gap.start)} to ${local(gap.end)}`),
      !isUtc && element("span", { class: "quiet" }, utcRange(gap.start, gap.end)),
      element("span", {}, `${plural(gap.cells.length, "window")}. ${state}.`),
    ),
    heal && element("button", { type: "button", "aria-label": label, onclick: () => heal([gap]) }, "Heal"),
  );
}

export function drawLateness(section, { document: { lateness } }) {
  const minutes = (seconds) => (seconds == null ? "–" : `${Math.round(seconds / 60)} min`);
  const facts = [
    ["Half of the windows", minutes(lateness.p50_seconds), "from a window's end to its last points"],
    ["95 % of the windows", minutes(lateness.p95_seconds), ""],
    ["Windows measured", number(lateness.windows ?? 0), `${number(lateness.late ?? 0)} with late points`],
  ];
  fill(section, element("dl", {}, ...facts.map(fact)), element("p", { class: "quiet" }, `${lateness.advice}.`));
}
