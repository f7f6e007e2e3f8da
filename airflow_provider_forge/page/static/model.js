// The coverage document as cells, gaps and counts. Nothing here touches the page.

export const QUARTER = 15 * 60_000;
export const HOUR = 4 * QUARTER;
export const DAY = 24 * HOUR;

/** The status of a cell by its letter, from best to worst, with its name and the sign of people who see no colors. */
export const STATUSES = {
  d: { name: "Delivered", sign: "" },
  l: { name: "Delivered, with late points", sign: "" },
  e: { name: "Empty", sign: "" },
  s: { name: "Delivered since the check", sign: "" },
  p: { name: "Not yet due", sign: "" },
  h: { name: "Being delivered or retried", sign: "…" },
  r: { name: "Points rejected", sign: "R" },
  f: { name: "Failed", sign: "!" },
  m: { name: "Missing", sign: "×" },
  F: { name: "Failed, lost soon", sign: "!" },
  M: { name: "Missing, lost soon", sign: "×" },
};

const ORDER = Object.keys(STATUSES);

export function isOpen(letter) {
  return "fmFM".includes(letter);
}

/** An export: its document, its DAG, and what its runs have done since the check. */
export class Export {
  constructor(document, check, dags) {
    this.document = document;
    this.check = check;
    this.dagId = document.dag_id;
    this.dag = dags.find((dag) => dag.dag_id === document.dag_id) ?? null;
    this.checkedAt = new Date(document.checked_at);
    /** What runs have done since the check; null until Airflow has answered. */
    this.runs = null;
    const first = document.start ? Date.parse(document.start) : 0;
    this.cells = [...document.cells].map((letter, number) => ({
      start: new Date(first + number * QUARTER),
      end: new Date(first + (number + 1) * QUARTER),
      checked: letter,
      letter,
      points: document.points[number],
      minutes: document.minutes[number],
      attempts: document.attempts[number],
    }));
  }

  /** Apply what runs have done since the check. */
  update(runs) {
    this.runs = runs;
    const letters = new Map();
    const since = runs.ended.filter((run) => Date.parse(run.end_date) >= this.checkedAt);
    for (const run of since) note(letters, run, run.state === "success" ? "s" : "f");
    for (const run of runs.active) note(letters, run, "h");
    for (const cell of this.cells) {
      const now = letters.get(+cell.start);
      const changes = isOpen(cell.checked) || cell.checked === "p";
      // A failed run leaves a cell as it was checked, unless nothing was due then.
      cell.letter = changes && now && (now !== "f" || cell.checked === "p") ? now : cell.checked;
    }
  }

  /**
   * How many runs of the last hour have made calls: not those whose windows were too old for the receiver. A run
   * that failed may have made some, too.
   */
  callsOfLastHour(now) {
    const keep = this.document.expire_after * 1000;
    return this.runs.ended.filter((run) => {
      const end = Date.parse(run.end_date);
      const start = Date.parse(run.conf?.from ?? run.data_interval_start ?? run.end_date);
      return run.state === "success" && now - end < HOUR && end - start < keep;
    }).length;
  }

  /** What tells it from all others: the task that checks it. */
  get key() {
    return `${this.check.dag_id}/${this.check.task_id}`;
  }

  /** Neighboring cells that have yet to be delivered. */
  gaps() {
    const gaps = [];
    for (const cell of this.cells) {
      const last = gaps.at(-1);
      if (!isOpen(cell.letter)) continue;
      if (last && +last.end === +cell.start) {
        last.end = cell.end;
        last.cells.push(cell);
      } else {
        const expires = new Date(+cell.start + this.document.expire_after * 1000);
        gaps.push({ start: cell.start, end: cell.end, expires, cells: [cell] });
      }
    }
    return gaps;
  }

  /** The latest window that the receiver has. */
  lastDelivered() {
    return this.cells.findLast((cell) => "dles".includes(cell.letter)) ?? null;
  }

  /** Windows delivered, and points, since midnight UTC. */
  today(now) {
    const midnight = Math.floor(now / DAY) * DAY;
    const cells = this.cells.filter((cell) => +cell.start >= midnight);
    return {
      due: cells.filter((cell) => cell.letter !== "p").length,
      delivered: cells.filter((cell) => "dles".includes(cell.letter)).length,
      points: cells.reduce((sum, cell) => sum + cell.points, 0),
    };
  }

  /** Whether the schedule has yet to come to a gap: then it needs no healing. */
  isAhead(gap) {
    const next = this.dag?.next_dagrun_data_interval_start ?? this.dag?.next_dagrun_logical_date;
    return Boolean(next) && +gap.end > Date.parse(next);
  }

  /** Minutes that so many calls take at the account's rate limit. */
  minutesFor(calls) {
    const [limit, seconds] = this.document.calls;
    return Math.ceil((calls / limit) * (seconds / 60));
  }
}

/** The interval that a run delivers, of all that its DAG exports; empty if it delivers something else. */
function intervalOf({ conf, run_type, data_interval_start, data_interval_end, logical_date }) {
  const form = conf ?? {};
  if (form.check_only || form.environments || form.metrics) return [];
  // The runs of a backfill ignore the times of the form.
  if (form.from && run_type !== "backfill") return [form.from, form.to];
  const start = data_interval_start ?? logical_date;
  return start ? [start, data_interval_end ?? start] : [];
}

function note(letters, run, letter) {
  const [start, end] = intervalOf(run).map(Date.parse);
  // A window of less than a quarter hour proves nothing of its whole cell, and a longer interval has several.
  const first = Math.ceil(start / QUARTER) * QUARTER;
  for (let at = first; at + QUARTER <= end; at += QUARTER) letters.set(at, letter);
}

/** The worst letter of some cells. */
export function worst(cells) {
  return cells.reduce((found, cell) => (ORDER.indexOf(cell.letter) > ORDER.indexOf(found) ? cell.letter : found), "d");
}

/**
 * Rows of a map: a row for each quarter hour or hour of the day, a column for each day in UTC.
 * Each square has the cells that it stands for; none where there are none.
 */
export function rowsOf(cells, size) {
  const days = [...new Set(cells.map((cell) => Math.floor(cell.start / DAY)))];
  const rows = Array.from({ length: DAY / size }, (_, number) => ({
    offset: number * size,
    squares: days.map(() => []),
  }));
  for (const cell of cells) {
    const day = Math.floor(cell.start / DAY);
    rows[Math.floor((cell.start - day * DAY) / size)].squares[days.indexOf(day)].push(cell);
  }
  return { days: days.map((day) => new Date(day * DAY)), rows };
}
