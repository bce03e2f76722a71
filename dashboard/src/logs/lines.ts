// Log lines: a bounded list and its filter. Pure.

import type { LogEntry } from "@tidings/client";

export const LEVELS = ["debug", "info", "warning", "error", "critical"] as const;
export type Level = (typeof LEVELS)[number];

export interface Line {
  /** Ascending and unique. */
  key: number;
  entry: LogEntry;
  /** Text to search in, in lower case. */
  text: string;
  /** The fields as text, shown beside the event. */
  fields: string;
}

export const MOST_LINES = 4000;

/** The newest lines; older ones are dropped. */
export class Lines {
  #lines: Line[] = [];
  #next = 0;
  #count = 0;
  #after = 0;

  /** Replaced, never mutated. */
  get all(): readonly Line[] {
    return this.#lines;
  }

  /** Number of lines so far, including dropped ones. */
  get count(): number {
    return this.#count;
  }

  /** Adds live lines. */
  add(entries: readonly LogEntry[]): void {
    this.#count += entries.length;
    this.#lines = [...this.#lines, ...entries.map((entry) => this.#line(entry))].slice(-MOST_LINES);
  }

  /** Sorts in stored lines, each once. Returns whether any was new. */
  merge(entries: readonly LogEntry[]): boolean {
    const known = new Set(this.#lines.map(({ entry }) => identity(entry)));
    const missing = entries.filter((entry) => entry.timestamp > this.#after && !known.has(identity(entry)));
    if (missing.length === 0) return false;
    this.#count += missing.length;
    const all = [...this.#lines.map(({ entry }) => entry), ...missing].sort((one, other) => one.timestamp - other.timestamp);
    this.#lines = all.slice(-MOST_LINES).map((entry) => this.#line(entry));
    return true;
  }

  /** Drops all lines. `merge` does not restore them. */
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
  /** The lowest level to show. */
  level: Level;
  text: string;
  /** Empty for all sources. */
  source: string;
}

/** Returns the lines of the level or above, from the source, that contain all words (`-word`: that do not). */
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

/** Unknown levels are shown, not hidden. */
function rank(level: string): number {
  const known = (LEVELS as readonly string[]).indexOf(level);
  return known < 0 ? LEVELS.length : known;
}

export function fieldsText(fields: Record<string, unknown> | undefined): string {
  return Object.entries(fields ?? {})
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}
