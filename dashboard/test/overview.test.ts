import type { MetricsRecord } from "@tidings/client";
import { describe, expect, it } from "vitest";
import { closer, RANGES, refreshMs, stepFor, zoomOf } from "../src/overview/ranges.js";
import { CHARTS } from "../src/overview/series.js";
import { bandsOf, DEFAULT_RULES, scaleTop, thresholdsOf } from "../src/overview/thresholds.js";
import { columns, lateness, timeline } from "../src/overview/timeline.js";

function record(second: number, cpu = 1, more: Partial<MetricsRecord> = {}): MetricsRecord {
  const rest = { memory: 2, disk: 3, network: { in: 4, out: 5 }, requests: 6, errors: 7 };
  return { cpu, ...rest, latencyP50: 8, latencyP95: 9, latencyP99: 10, timestamp: second * 1000, ...more };
}

const chart = (id: string) => CHARTS.find((each) => each.id === id)!;
const ALL = { from: 0, to: Infinity };

describe("ranges", () => {
  it("are asked for in as many rows as a chart can show", () => {
    expect(RANGES.map(({ spanS }) => stepFor(spanS))).toEqual([1, 5, 30, 120, 900, 3600]);
    for (const { spanS } of RANGES) expect(spanS / stepFor(spanS)).toBeLessThanOrEqual(750);
  });

  it("are asked for again as often as something new can be there", () => {
    expect([1, 5, 30, 900].map(refreshMs)).toEqual([0, 10_000, 30_000, 60_000]);
  });

  it("can be zoomed, but not into nothing", () => {
    expect(zoomOf(10.4, 90.2)).toEqual({ from: 10, to: 91 });
    expect(zoomOf(10, 15)).toBeUndefined();
    expect(closer({ from: 0, to: 100 }, 50)).toEqual({ from: 25, to: 75 });
    expect(closer({ from: 0, to: 100 }, 95)).toEqual({ from: 50, to: 100 });
    expect(closer({ from: 0, to: 12 }, 6)).toBeUndefined();
  });
});

describe("the timeline", () => {
  it("goes on live where history ends, each second once", () => {
    const { times } = timeline([record(1), record(2), record(3)], [record(2), record(3), record(4)], 1, ALL);
    expect(times).toEqual([1, 2, 3, 4]);
  });

  it("leaves gaps where nothing was measured", () => {
    const { times, rows } = timeline([record(1), record(2), record(9)], [], 1, ALL);
    expect(times).toEqual([1, 2, 2.5, 9]);
    expect(rows.map((row) => row !== null)).toEqual([true, true, false, true]);
  });

  it("has none between long steps and the seconds after them", () => {
    expect(timeline([record(60), record(120)], [record(170), record(171)], 60, ALL).times).toEqual([60, 120, 170, 171]);
  });

  it("ends at its window", () => {
    expect(timeline([record(1), record(2), record(3)], [record(4)], 1, { from: 2, to: 3 }).times).toEqual([2, 3]);
  });

  it("becomes columns, with extremes where there is one series", () => {
    const shown = timeline([record(1, 5, { min: { cpu: 1 }, max: { cpu: 9 } }), record(2, 6)], [], 1, ALL);
    expect(columns(chart("cpu"), shown)).toEqual([[1, 2], [5, 6], [9, null], [1, null]]);
    expect(columns(chart("network"), shown)).toEqual([[1, 2], [4, 4], [5, 5]]);
    expect(columns(chart("latency"), shown)).toHaveLength(4);
  });
});

describe("late data", () => {
  it("is what did not come in time, whatever the clocks say", () => {
    expect(lateness(undefined, undefined, 0)).toBeUndefined();
    expect(lateness(record(10), 500_000, 501_000)).toBeUndefined();
    expect(lateness(record(10), 500_000, 507_000)).toBe(7000);
  });

  it("is computed from its timestamp before a live record arrived", () => {
    expect(lateness(record(10), undefined, 11_000)).toBeUndefined();
    expect(lateness(record(10), undefined, 50_000)).toBe(40_000);
  });
});

describe("thresholds", () => {
  it("are those of the whole deployment", () => {
    const rules = [...DEFAULT_RULES, { metric: "cpu", source: "*", warning: 1 }, { metric: "cpu", warning: 2, overridden: true }];
    expect(thresholdsOf(chart("cpu"), rules).map(({ severity, value }) => [severity, value])).toEqual([
      ["warning", 70],
      ["critical", 90],
    ]);
    expect(thresholdsOf(chart("disk"), rules)).toEqual([]);
    expect(thresholdsOf(chart("latency"), rules)).toHaveLength(2);
  });

  it("are in the picture where the data comes near them", () => {
    const thresholds = thresholdsOf(chart("latency"), DEFAULT_RULES);
    expect(scaleTop(chart("cpu"), 5, [])).toBe(100);
    expect(scaleTop(chart("latency"), 0.3, thresholds)).toBe(1);
    expect(scaleTop(chart("latency"), 200, thresholds)).toBeGreaterThan(500);
    expect(scaleTop(chart("latency"), 200, thresholds)).toBeLessThan(1000);
  });

  it("were crossed from then till then", () => {
    const entry = { id: "cpu-alert", type: "critical", metric: "cpu", value: 1, threshold: 1, message: "", timestamp: 1 } as const;
    expect(
      bandsOf(chart("cpu"), [
        { ...entry, state: "resolved", startedAt: 1000, endedAt: 3000 },
        { ...entry, state: "firing", startedAt: 5000 },
        { ...entry, state: "firing", startedAt: 5000, source: "host" },
        { ...entry, metric: "errors", state: "firing", startedAt: 5000 },
      ]),
    ).toEqual([
      { severity: "critical", from: 1, to: 3 },
      { severity: "critical", from: 5, to: undefined },
    ]);
  });
});
