// What to do while there is nothing to show.

import * as api from "./api.js";
import { airflowLink, element } from "./dom.js";

const isCoverage = (dag) => dag.dag_id.includes("coverage");

/** Return why there is no coverage, and the next step. */
export async function emptyState(dags) {
  const exporting = dags.filter((dag) => !isCoverage(dag));
  const coverage = dags.find(isCoverage);
  if (!exporting.length) {
    if ((await api.hasConnection("forge_default")) === false) {
      return state("There is no Connection yet", [
        ["Add the Connections forge_default and otlp_default under ", airflowLink("connections", "Admin, Connections"), "."],
        ["Then copy dags/forge_metrics.py and dags/forge_metrics_coverage.py into your DAGs folder."],
      ]);
    }
    return state("There is no export yet, or you may not see it", [
      ["Copy dags/forge_metrics.py into your DAGs folder. This page finds DAGs by their tag “forge”."],
    ]);
  }
  const [paused] = exporting;
  if (exporting.every((dag) => dag.is_paused)) {
    return state(`${paused.dag_id} is paused`, [
      ["Unpause ", dagLink(paused), ". It then delivers the newest window, and the last 14 days behind it."],
    ]);
  }
  if (!coverage) {
    return state("Nobody checks the deliveries yet", [
      ["Copy dags/forge_metrics_coverage.py into your DAGs folder, beside forge_metrics.py, and unpause it."],
    ]);
  }
  if (coverage.is_paused) {
    return state(`${coverage.dag_id} is paused`, [
      ["Unpause ", dagLink(coverage), ". It checks the deliveries once an hour, and this page shows its latest check."],
    ]);
  }
  return state("No check has found a ledger of deliveries yet", [
    ["Wait until ", dagLink(exporting[0]), " has delivered a window, then trigger ", dagLink(coverage), "."],
    ["If its task is skipped, its log says why: Airflow before 3.3 keeps a ledger only if the OTLP Connection has a Ledger URL."],
  ]);
}

/** Return what to do after Airflow has refused a request. */
export function refusedState(refusal) {
  if (refusal.status === 401) {
    return state("You are not signed in", [[airflowLink("", "Sign in to Airflow"), ", then open this page again."]]);
  }
  if (refusal.status === 403) {
    return state("You may not read the DAGs of an export", [["Ask an administrator of this Airflow for the right to read them and their XComs."]]);
  }
  return state("Airflow did not answer as expected", [[`${refusal.message} (${refusal.status || "no answer"}).`]]);
}

function dagLink(dag) {
  return airflowLink(`dags/${encodeURIComponent(dag.dag_id)}`, dag.dag_id);
}

function state(title, steps) {
  return element(
    "section",
    { class: "panel empty" },
    element("h2", {}, title),
    element("ol", {}, ...steps.map((step) => element("li", {}, ...step))),
  );
}
