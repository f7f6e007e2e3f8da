// Heals gaps by a backfill of Airflow's own, as the signed-in user: shows what it will do, starts it, follows it.

import * as api from "./api.js";
import { element, plural, time } from "./dom.js";

const POLL = 3000;

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Whether this user may start a backfill of the DAG: a dry run asks for the same right. */
export async function mayHeal(exported, gap) {
  try {
    await api.dryRun(exported.dagId, gap.start, gap.end, "completed");
    return true;
  } catch (refusal) {
    return ![401, 403].includes(refusal.status);
  }
}

/** Ask in a dialog, heal, and call `onchange` whenever something has changed; `onend` when it has ended. */
export async function heal(exported, gaps, { onchange, onend }) {
  const dialog = document.getElementById("dialog");
  const start = gaps[0].start;
  const end = gaps.at(-1).end;
  // Windows of one gap are all undelivered, also those whose runs have succeeded. Between gaps, they are not.
  const reprocess = gaps.length > 1 ? "failed" : "completed";
  say(dialog, "Heal", [element("p", {}, "Asking Airflow …")]);
  dialog.showModal();
  try {
    const runs = await api.dryRun(exported.dagId, start, end, reprocess);
    if (!(await confirmed(dialog, exported, { start, end, runs, reprocess }))) return;
    const begun = await api.startBackfill(exported.dagId, start, end, reprocess);
    onchange();
    await follow(dialog, exported, { start, end, runs, since: begun.created_at }, onchange);
    await checkAgain(dialog, exported);
    onend();
    say(dialog, "Done", [element("p", {}, "The backfill has ended. The map shows the latest check.")], closing(dialog));
  } catch (refusal) {
    say(dialog, "Not healed", [element("p", {}, explained(refusal))], closing(dialog));
  }
}

function explained(refusal) {
  if (refusal.status === 409) return "A backfill of this DAG is active. Airflow runs one at a time: wait until it has ended.";
  if (refusal.status === 503) return "Airflow's database is locked: try again, or heal a smaller gap. Larger backfills need PostgreSQL or MySQL.";
  if (refusal.status === 403) return "Airflow does not allow you to start a backfill of this DAG.";
  return `${refusal.message} (${refusal.status || "no answer"})`;
}

function confirmed(dialog, exported, { start, end, runs, reprocess }) {
  const minutes = exported.minutesFor(runs);
  const lines = [
    `From ${time(start)}`,
    `to ${time(end)}`,
    `${plural(runs, "run")} of ${exported.dagId}, each with one call to Atlassian: ${plural(minutes, "minute")} or more at the account's limit.`,
    reprocess === "failed"
      ? "Windows that were never run, and those whose runs have failed, are fetched."
      : "All windows of the gap are fetched, also those whose runs have succeeded.",
    "Points that were delivered before are not sent again. Afterwards, coverage is checked again.",
  ];
  if (exported.dag?.is_paused) lines.push("The DAG is paused: its runs wait until somebody unpauses it.");
  return new Promise((answer) => {
    const cancel = element("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const start_ = element("button", { type: "button", class: "main", onclick: () => answer(true) }, `Start ${plural(runs, "run")}`);
    start_.disabled = !runs;
    dialog.addEventListener("close", () => answer(false), { once: true });
    say(dialog, "Heal", lines.map((line) => element("p", {}, line)), [cancel, start_]);
    (runs ? start_ : cancel).focus();
  });
}

async function follow(dialog, exported, { start, end, runs, since }, onchange) {
  const bar = element("progress", { max: runs, value: 0, "aria-label": "Runs that have ended" });
  const text = element("p", { role: "status" });
  say(dialog, "Healing", [bar, text], closing(dialog));
  for (;;) {
    const { ended, failed } = await api.progressOf(exported.dagId, start, end, since);
    bar.value = ended;
    text.textContent = `${ended} of ${plural(runs, "run")} ended${failed ? `, ${failed} failed` : ""}. You may close this.`;
    onchange();
    if (ended >= runs) return;
    await sleep(POLL);
  }
}

/** Run the coverage DAG and wait for its end; without the right to, the next scheduled check shows the result. */
async function checkAgain(dialog, exported) {
  say(dialog, "Checking", [element("p", { role: "status" }, `Running ${exported.check.dag_id} …`)], closing(dialog));
  try {
    const run = await api.startRun(exported.check.dag_id);
    while (!["success", "failed"].includes(await api.stateOfRun(exported.check.dag_id, run.dag_run_id))) {
      await sleep(POLL);
    }
  } catch (refusal) {
    if (refusal.status !== 403) throw refusal;
  }
}

function closing(dialog) {
  return [element("button", { type: "button", onclick: () => dialog.close() }, "Close")];
}

function say(dialog, title, content, buttons = []) {
  dialog.replaceChildren(
    element("h2", { id: "dialog-title" }, title),
    ...content,
    element("p", { class: "actions" }, ...buttons),
  );
}
