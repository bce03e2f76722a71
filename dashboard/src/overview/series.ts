// The charts, and how their values are read and formatted.

import type { MetricsRecord } from "@tidings/client";
import { bytesPerSecond, milliseconds, percent, perSecond } from "../format.js";

export interface Series {
  /** The metric's name in alert rules and in `min` and `max` of rollup rows. */
  metric: string;
  /** Shown beside the value in a chart with several series. */
  label: string;
  /** The CSS custom property of its colour. */
  colour: string;
  read: (record: MetricsRecord) => number;
}

export interface ChartSpec {
  id: string;
  title: string;
  series: readonly Series[];
  format: (value: number) => string;
  /** The largest possible value; without it the scale follows the data. */
  top?: number;
  /** The smallest span of the scale: noise around zero should not fill the chart. */
  atLeast?: number;
}

export const CHARTS: readonly ChartSpec[] = [
  {
    id: "cpu",
    title: "CPU",
    series: [{ metric: "cpu", label: "CPU", colour: "--series-blue", read: (r) => r.cpu }],
    format: percent,
    top: 100,
  },
  {
    id: "memory",
    title: "Memory",
    series: [{ metric: "memory", label: "Memory", colour: "--series-violet", read: (r) => r.memory }],
    format: percent,
    top: 100,
  },
  {
    id: "disk",
    title: "Disk",
    series: [{ metric: "disk", label: "Disk", colour: "--series-teal", read: (r) => r.disk }],
    format: percent,
    top: 100,
  },
  {
    id: "requests",
    title: "Requests",
    series: [{ metric: "requests", label: "Requests", colour: "--series-green", read: (r) => r.requests }],
    format: perSecond,
    atLeast: 5,
  },
  {
    id: "errors",
    title: "Errors",
    series: [{ metric: "errors", label: "Errors", colour: "--series-red", read: (r) => r.errors }],
    format: perSecond,
    atLeast: 5,
  },
  {
    id: "latency",
    title: "Latency",
    series: [
      { metric: "latencyP50", label: "p50", colour: "--series-sky", read: (r) => r.latencyP50 },
      { metric: "latencyP95", label: "p95", colour: "--series-blue", read: (r) => r.latencyP95 },
      { metric: "latencyP99", label: "p99", colour: "--series-indigo", read: (r) => r.latencyP99 },
    ],
    format: milliseconds,
    atLeast: 1,
  },
  {
    id: "network",
    title: "Network",
    series: [
      { metric: "network_in", label: "in", colour: "--series-teal", read: (r) => r.network.in },
      { metric: "network_out", label: "out", colour: "--series-orange", read: (r) => r.network.out },
    ],
    format: bytesPerSecond,
    atLeast: 1000,
  },
];
