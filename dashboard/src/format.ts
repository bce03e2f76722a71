// Formats numbers and times. Pure: `now` is passed in.

const UNITS = ["B", "KB", "MB", "GB", "TB"];
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** A number with digits according to its size: 0.042, 4.2, 42, 4,200. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.1) return value.toFixed(3).replace(/0+$/, "").replace(/\.$/, "") || "0";
  if (size < 10) return value.toFixed(1).replace(/\.0$/, "");
  if (size < 10_000) return Math.round(value).toLocaleString("en");
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function percent(value: number): string {
  return `${value < 10 ? value.toFixed(1) : value.toFixed(value < 99.95 ? 1 : 0)} %`;
}

export function bytes(value: number): string {
  let unit = 0;
  let rest = value;
  while (rest >= 1000 && unit < UNITS.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${unit === 0 ? Math.round(rest) : short(rest)} ${UNITS[unit] ?? ""}`;
}

export const bytesPerSecond = (value: number): string => `${bytes(value)}/s`;
export const perSecond = (value: number): string => `${short(value)}/s`;

export function milliseconds(value: number): string {
  return value >= 10_000 ? `${short(value / 1000)} s` : `${short(value)} ms`;
}

/** A duration in its largest two units: 7 s, 4 min, 2 h 5 min, 3 d 4 h. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < MINUTE) return `${seconds} s`;
  if (seconds < HOUR) return two(seconds, MINUTE, "min", 1, "s", 5 * MINUTE);
  if (seconds < DAY) return two(seconds, HOUR, "h", MINUTE, "min", DAY);
  return two(seconds, DAY, "d", HOUR, "h", 10 * DAY);
}

/** `whole` units, and the rest in `part` units if the total is below `until` seconds. */
function two(seconds: number, whole: number, name: string, part: number, partName: string, until: number): string {
  const left = Math.floor((seconds % whole) / part);
  const first = `${Math.floor(seconds / whole)} ${name}`;
  return left > 0 && seconds < until ? `${first} ${left} ${partName}` : first;
}

export function ago(at: number, now: number): string {
  const past = now - at;
  return past < 1500 ? "now" : `${duration(past)} ago`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const clockTime = (at: number): string => CLOCK.format(at);

/** The time of day, with the date if it is not today. */
export function moment(at: number, now: number): string {
  const sameDay = new Date(at).toDateString() === new Date(now).toDateString();
  return sameDay ? clockTime(at) : `${DATE.format(at)} ${clockTime(at)}`;
}

/** A number and its noun: 1 user, 2 users. */
export function count(n: number, word: string): string {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}

/** Content of a message as one line of text: strings unchanged, everything else as JSON. */
export function contentText(content: unknown): string {
  if (typeof content === "string") return content;
  if (typeof content === "object" && content !== null && "text" in content && typeof content.text === "string") {
    return content.text;
  }
  return JSON.stringify(content);
}
