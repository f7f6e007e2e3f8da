// Opens a window's run in Airflow's grid.

import { runOf } from "./api.js";
import { openInAirflow } from "./dom.js";

export async function openRunOf(exported, cell) {
  const run = await runOf(exported.dagId, cell.start).catch(() => null);
  const dag = `dags/${encodeURIComponent(exported.dagId)}`;
  openInAirflow(run ? `${dag}/runs/${encodeURIComponent(run.dag_run_id)}` : dag);
}
