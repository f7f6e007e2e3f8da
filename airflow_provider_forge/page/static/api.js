// Airflow's REST API, asked with the session of the signed-in user: Airflow decides what that user may see.

const BASE = new URL("../api/v2/", location.href);
const KEY = "forge_coverage";
const PAGE = 100;
const QUARTER = 15 * 60_000;

/** Airflow refused a request; `status` is 0 if it did not answer. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, { method = "GET", query = {}, body } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) url.searchParams.append(name, each);
  }
  const headers = { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) };
  let answer;
  try {
    answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
  } catch {
    throw new Refusal(0, "Airflow does not answer");
  }
  const text = await answer.text();
  if (!answer.ok) throw new Refusal(answer.status, detailOf(text) || answer.statusText);
  return text ? JSON.parse(text) : null;
}

function detailOf(text) {
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    return "";
  }
}

const part = encodeURIComponent;

/** The latest coverage of each task of a coverage DAG that this user may read, without its value. */
export async function latestChecks(now = Date.now()) {
  const path = "dags/~/dagRuns/~/taskInstances/~/xcomEntries";
  const query = { xcom_key: KEY, limit: PAGE, order_by: "-timestamp" };
  // Airflow 3.1 does not sort by time, so the list is kept short.
  const recent = { ...query, run_after_gte: new Date(now - 3 * 3_600_000).toISOString() };
  let found = await ask(path, { query: recent });
  if (!found.total_entries) found = await ask(path, { query });
  const latest = new Map();
  for (const entry of found.xcom_entries) {
    const task = `${entry.dag_id}/${entry.task_id}/${entry.map_index}`;
    if (!(latest.get(task)?.timestamp > entry.timestamp)) latest.set(task, entry);
  }
  return [...latest.values()];
}

/** The document of a check; null if it is of a later version than this page. Refused if it is not in the database. */
export async function coverageOf({ dag_id, run_id, task_id, map_index }) {
  const path = `dags/${part(dag_id)}/dagRuns/${part(run_id)}/taskInstances/${part(task_id)}/xcomEntries/${KEY}`;
  const { value } = await ask(path, { query: { map_index, deserialize: false } });
  const document = typeof value === "string" ? parsed(value) : value;
  return document?.version === 1 ? document : null;
}

function parsed(value) {
  try {
    return JSON.parse(value);
  } catch {
    throw new Refusal(0, "its result is not in Airflow's database, but where an XCom backend stores it");
  }
}

export async function forgeDags() {
  return (await ask("dags", { query: { tags: "forge", limit: PAGE } })).dags;
}

/** Whether there is a Connection; null if this user may not know. */
export async function hasConnection(id) {
  try {
    await ask(`connections/${part(id)}`);
    return true;
  } catch (refusal) {
    return refusal.status === 404 ? false : null;
  }
}

/** Runs that wait or run, those that have ended since a time, and how many tasks wait for a retry. */
export async function runsSince(dagId, since) {
  const path = `dags/${part(dagId)}/dagRuns`;
  const [active, ended, retries] = await Promise.all([
    ask(path, { query: { state: ["queued", "running"], limit: PAGE, order_by: "-run_after" } }),
    ask(path, { query: { end_date_gte: since.toISOString(), limit: PAGE, order_by: "-end_date" } }),
    ask(`${path}/~/taskInstances`, { query: { state: "up_for_retry", limit: 1 } }),
  ]);
  return {
    active: active.dag_runs,
    activeCount: active.total_entries,
    ended: ended.dag_runs,
    retries: retries.total_entries ?? 0,
  };
}

/** The run of a window; null if there is none. */
export async function runOf(dagId, start) {
  const query = { logical_date_gte: start.toISOString(), logical_date_lte: start.toISOString(), limit: 1 };
  return (await ask(`dags/${part(dagId)}/dagRuns`, { query })).dag_runs[0] ?? null;
}

function backfill(dagId, start, end, reprocess) {
  return {
    dag_id: dagId,
    from_date: start.toISOString(),
    // The start of the last window.
    to_date: new Date(end - QUARTER).toISOString(),
    reprocess_behavior: reprocess,
    max_active_runs: 8,
    run_backwards: false,
  };
}

/** The number of runs that a backfill would have. */
export async function dryRun(dagId, start, end, reprocess) {
  const body = backfill(dagId, start, end, reprocess);
  return (await ask("backfills/dry_run", { method: "POST", body })).total_entries;
}

export function startBackfill(dagId, start, end, reprocess) {
  return ask("backfills", { method: "POST", body: backfill(dagId, start, end, reprocess) });
}

/** How many runs of a time range have ended since a time, and how many of them have failed. */
export async function progressOf(dagId, start, end, since) {
  const query = {
    logical_date_gte: start.toISOString(),
    logical_date_lte: new Date(end - QUARTER).toISOString(),
    end_date_gte: since,
    limit: 1,
  };
  const path = `dags/${part(dagId)}/dagRuns`;
  const [ended, failed] = await Promise.all([
    ask(path, { query: { ...query, state: ["success", "failed"] } }),
    ask(path, { query: { ...query, state: "failed" } }),
  ]);
  return { ended: ended.total_entries, failed: failed.total_entries };
}

export function startRun(dagId) {
  return ask(`dags/${part(dagId)}/dagRuns`, { method: "POST", body: { logical_date: null } });
}

export async function stateOfRun(dagId, runId) {
  return (await ask(`dags/${part(dagId)}/dagRuns/${part(runId)}`)).state;
}
