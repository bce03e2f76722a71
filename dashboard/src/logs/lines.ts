// Log lines: a bounded number of them, and which are shown. Pure.

import type { LogEntry } from "@tidings/client";

export const LEVELS = ["debug", "info", "warning", "error", "critical"] as const;
export type Level = (typeof LEVELS)[number];

export interface Line {
  /** Ascending; names the line as long as it is kept. */
  key: number;
  entry: LogEntry;
  /** All that a search looks at, in small letters. */
  text: string;
  /** The fields, as they stand beside the event. */
  fields: string;
}

export const MOST_LINES = 4000;

/** The newest lines; older ones make room. */
export class Lines {
  #lines: Line[] = [];
  #next = 0;
  #count = 0;
  #after = 0;

  /** Replaced, never changed. */
  get all(): readonly Line[] {
    return this.#lines;
  }

  /** How many there ever were. */
  get count(): number {
    return this.#count;
  }

  /** Adds what came live. */
  add(entries: readonly LogEntry[]): void {
    this.#count += entries.length;
    this.#lines = [...this.#lines, ...entries.map((entry) => this.#line(entry))].slice(-MOST_LINES);
  }

  /** Puts lines that are kept elsewhere in their places, each once; says whether any was new. */
  merge(entries: readonly LogEntry[]): boolean {
    const known = new Set(this.#lines.map(({ entry }) => identity(entry)));
    const missing = entries.filter((entry) => entry.timestamp > this.#after && !known.has(identity(entry)));
    if (missing.length === 0) return false;
    this.#count += missing.length;
    const all = [...this.#lines.map(({ entry }) => entry), ...missing].sort((one, other) => one.timestamp - other.timestamp);
    this.#lines = all.slice(-MOST_LINES).map((entry) => this.#line(entry));
    return true;
  }

  /** Forgets all lines; they do not come back with `merge` either. */
  clear(): void {
    this.#after = this.#lines.reduce((latest, { entry }) => Math.max(latest, entry.timestamp), this.#after);
    this.#lines = [];
  }

  #line(entry: LogEntry): Line {
    const fields = fieldsText(entry.fields);
    return { key: this.#next++, entry, fields, text: `${entry.source} ${entry.event} ${fields}`.toLowerCase() };
  }
}

function identity({ timestamp, source, event }: LogEntry): string {
  return `${timestamp} ${source} ${event}`;
}

export interface Filter {
  /** The least severe level that is shown. */
  level: Level;
  text: string;
  /** Empty: of all. */
  source: string;
}

/** Returns the lines that pass: severe enough, of the source, with all words in them (`-word`: without it). */
export function passing(lines: readonly Line[], { level, text, source }: Filter): readonly Line[] {
  const least = LEVELS.indexOf(level);
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "" && word !== "-");
  if (least === 0 && words.length === 0 && source === "") return lines;
  return lines.filter((line) => {
    if (rank(line.entry.level) < least) return false;
    if (source !== "" && line.entry.source !== source) return false;
    return words.every((word) => (word.startsWith("-") ? !line.text.includes(word.slice(1)) : line.text.includes(word)));
  });
}

/** A level that is not in the list is shown rather than hidden. */
function rank(level: string): number {
  const known = (LEVELS as readonly string[]).indexOf(level);
  return known < 0 ? LEVELS.length : known;
}

export function fieldsText(fields: Record<string, unknown> | undefined): string {
  return Object.entries(fields ?? {})
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}
