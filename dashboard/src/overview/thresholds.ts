// Thresholds of alerts, and the times when they fired. Pure.

import type { Alert, AlertLogEntry, Operations } from "@tidings/client";
import type { ChartSpec } from "./series.js";

type RuleList = Operations["GET /api/rules"]["answer"];
type Rule = RuleList["rules"][number];
export type Severity = Alert["type"];

export interface Threshold {
  metric: string;
  severity: Severity;
  value: number;
  op: ">=" | "<=";
}

/** The built-in thresholds, shown until the server sends its rules. */
export const DEFAULT_RULES: readonly Rule[] = [
  { metric: "cpu", warning: 70, critical: 90 },
  { metric: "memory", warning: 80, critical: 95 },
  { metric: "latencyP99", warning: 500, critical: 1000 },
  { metric: "errors", warning: 10, critical: 50 },
];

/** Returns the fleet's thresholds for the metrics of a chart. */
export function thresholdsOf(spec: ChartSpec, rules: readonly Rule[]): Threshold[] {
  const metrics = new Set(spec.series.map(({ metric }) => metric));
  return rules
    .filter(({ metric, source, match, overridden }) => {
      return metrics.has(metric) && !source && !overridden && Object.keys(match ?? {}).length === 0;
    })
    .flatMap(({ metric, warning, critical, op = ">=" }) =>
      (["warning", "critical"] as const).flatMap((severity) => {
        const value = severity === "warning" ? warning : critical;
        return value === undefined || value === null ? [] : [{ metric, severity, value, op }];
      }),
    );
}

export interface Band {
  severity: Severity;
  /** Seconds since 1970; without an end while the alert fires. */
  from: number;
  to: number | undefined;
}

/** Returns the times when the fleet's alerts about a chart's metrics fired. */
export function bandsOf(spec: ChartSpec, entries: readonly AlertLogEntry[]): Band[] {
  const metrics = new Set(spec.series.map(({ metric }) => metric));
  return entries
    .filter(({ metric, source }) => metrics.has(metric) && !source)
    .map(({ type, startedAt, endedAt }) => ({
      severity: type,
      from: startedAt / 1000,
      to: endedAt === undefined ? undefined : endedAt / 1000,
    }));
}

/** Returns the scale's limits for values up to `max`, with the thresholds that the data comes near. */
export function scaleTop(spec: ChartSpec, max: number, thresholds: readonly Threshold[]): number {
  if (spec.top !== undefined) return spec.top;
  const near = thresholds.map(({ value }) => value).filter((value) => value <= max * NEAR);
  return Math.max(max * HEADROOM, spec.atLeast ?? 0, ...near.map((value) => value * HEADROOM));
}

const NEAR = 3;
const HEADROOM = 1.08;
