// Rows of history and live records as the columns that charts draw. Pure.

import type { MetricsRecord } from "@tidings/client";
import type { ChartSpec } from "./series.js";

export type Column = (number | null)[];

export interface Timeline {
  /** Seconds since 1970, ascending; the same for all charts, which share one crosshair. */
  times: number[];
  rows: readonly (MetricsRecord | null)[];
}

/** Number of steps between two rows from which the chart shows a gap. */
const GAP_STEPS = 3.5;

/** Joins stored rows and the live records after them, within a window of seconds. */
export function timeline(
  stored: readonly MetricsRecord[],
  live: readonly MetricsRecord[],
  stepS: number,
  window: { from: number; to: number },
): Timeline {
  const times: number[] = [];
  const rows: (MetricsRecord | null)[] = [];
  const last = stored.at(-1)?.timestamp ?? 0;
  let before = -Infinity;
  const add = (record: MetricsRecord, step: number): void => {
    const time = record.timestamp / 1000;
    if (time <= before || time < window.from || time > window.to) return;
    if (time - before > GAP_STEPS * step && before !== -Infinity) {
      times.push(before + step / 2);
      rows.push(null);
    }
    times.push(time);
    rows.push(record);
    before = time;
  };
  for (const record of stored) add(record, stepS);
  // Where steps are long, the first live record may be most of a step after the last row.
  let first = true;
  for (const record of live) {
    if (record.timestamp <= last) continue;
    add(record, first ? stepS : 1);
    first = false;
  }
  return { times, rows };
}

/** Returns the columns of one chart: one for each series, and the extremes of a single series. */
export function columns(spec: ChartSpec, { times, rows }: Timeline): [number[], ...Column[]] {
  const means = spec.series.map(({ read }) => rows.map((row) => (row ? read(row) : null)));
  const [only] = spec.series;
  if (!only || spec.series.length > 1) return [times, ...means];
  const extreme = (which: "min" | "max"): Column => rows.map((row) => row?.[which]?.[only.metric] ?? null);
  return [times, ...means, extreme("max"), extreme("min")];
}

/** How late the newest data is, in ms, or undefined while it is not. */
export function lateness(
  latest: MetricsRecord | undefined,
  receivedAt: number | undefined,
  now: number,
): number | undefined {
  if (!latest) return undefined;
  // The server's clock may differ, so the arrival of the last live record counts; before the first one only its
  // timestamp is known.
  const late = now - (receivedAt ?? latest.timestamp);
  return late > LATE_MS ? late : undefined;
}

/** One record a second, one late record, and one more. */
export const LATE_MS = 3500;
