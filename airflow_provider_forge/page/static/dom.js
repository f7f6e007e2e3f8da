// Makes elements, and writes times, numbers and durations.

/** Return an element with attributes and children; text is never read as HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

/** Replace all children of a section but its heading. */
export function fill(section, ...children) {
  const heading = section.querySelector("h2");
  section.replaceChildren(...(heading ? [heading] : []), ...children);
}

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const LOCAL_TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const NUMBER = new Intl.NumberFormat();
const MINUTE = 60_000;

export const zone = LOCAL.resolvedOptions().timeZone;
export const isUtc = ["UTC", "Etc/UTC", "GMT"].includes(zone);

/** "2026-11-23 05:15 UTC" */
export function utc(date) {
  return `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** The time in the user's zone. */
export function local(date) {
  return isUtc ? utc(date) : LOCAL.format(date);
}

/** The time in the user's zone, with UTC beside it. */
export function time(date) {
  return isUtc ? utc(date) : `${LOCAL.format(date)} (${utc(date)})`;
}

/** A range of time in UTC. */
export function utcRange(start, end) {
  return `${start.toISOString().slice(0, 16).replace("T", " ")} to ${utc(end)}`;
}

/** The hour and minute in the user's zone, "05:30"; without minutes, "05". */
export function localTime(date) {
  return LOCAL_TIME.format(date).replace(":00", "");
}

export function number(value) {
  return NUMBER.format(value);
}

export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** "7 min", "3 h", "12 days": the largest unit of which there are at least two. */
export function duration(milliseconds) {
  const minutes = Math.max(0, Math.round(milliseconds / MINUTE));
  if (minutes < 120) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.round(minutes / 60)} h`;
  return `${Math.round(minutes / 1440)} days`;
}

/** A link into Airflow's UI, which works inside of its frame as well. */
export function airflowLink(path, text) {
  const url = new URL(path, new URL("..", location.href)).href;
  return element("a", { href: url, onclick: (event) => follow(event, url) }, text);
}

/** Open a page of Airflow around this page: its frame may not change the address by itself. */
export function openInAirflow(path) {
  const url = new URL(path, new URL("..", location.href)).href;
  if (window.parent === window) location.href = url;
  else showAround(url);
}

function follow(event, url) {
  if (window.parent === window || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  showAround(url);
}

function showAround(url) {
  window.parent.history.pushState(null, "", url);
  window.parent.dispatchEvent(new window.parent.PopStateEvent("popstate", { state: null }));
}
