// Draws a chart with uPlot: axes, areas, thresholds, and the times of alerts.

import uPlot from "uplot";
import type { ChartSpec } from "./series.js";
import { scaleTop, type Band, type Threshold } from "./thresholds.js";

export interface Markings {
  thresholds: readonly Threshold[];
  bands: readonly Band[];
}

export interface Drawing {
  spec: ChartSpec;
  width: number;
  height: number;
  sync: string;
  /** Thresholds and alerts, read at each drawing. */
  markings: () => Markings;
  /** The range of the chart in seconds since 1970, read at each drawing. */
  span: () => { from: number; to: number };
  onCursor: (index: number | null) => void;
  onZoom: (from: number, to: number) => void;
}

const AXIS_PX = 58;
const FONT = "11px 'Inter Variable', system-ui, sans-serif";

/** Returns the options of a chart, in the current colours of the page. */
export function optionsOf(drawing: Drawing): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const { spec } = drawing;
  const single = spec.series.length === 1;
  const axis = {
    stroke: colour("--muted"),
    font: FONT,
    grid: { stroke: colour("--grid"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: drawing.width,
    height: drawing.height,
    padding: [8, 16, 0, 0],
    legend: { show: false },
    focus: { alpha: 1 },
    cursor: {
      sync: { key: drawing.sync, scales: ["x", null] },
      drag: { x: true, y: false, setScale: false },
      points: { size: 7, width: 2 },
      y: false,
    },
    scales: {
      x: { time: true, range: () => spanOf(drawing) },
      y: {
        range: (chart) => {
          // uPlot's own range leaves out the extremes, which have no line.
          const { thresholds } = drawing.markings();
          return [0, scaleTop(spec, largest(chart), thresholds)];
        },
      },
    },
    axes: [
      { ...axis, space: 58, size: 24, gap: 4, values: TIMES },
      {
        ...axis,
        space: 34,
        size: AXIS_PX,
        gap: 6,
        values: (_, splits) => splits.map((value) => (value === 0 ? "0" : spec.format(value).replace(/\.0(?= )/, ""))),
      },
    ],
    series: [
      {},
      ...spec.series.map(({ colour: name }) => ({
        stroke: colour(name),
        width: 1.6,
        points: { show: false },
        spanGaps: false,
        ...(single && { fill: (chart: uPlot) => fade(chart, colour(name)) }),
      })),
      ...(single ? [EXTREME, EXTREME] : []),
    ],
    ...(single && { bands: [{ series: [2, 3], fill: `${colour(spec.series[0]?.colour ?? "")}2e` }] }),
    hooks: {
      drawClear: [(chart) => drawBands(chart, drawing.markings().bands, colour)],
      draw: [(chart) => drawThresholds(chart, drawing.markings().thresholds, colour)],
      setCursor: [(chart) => drawing.onCursor(chart.cursor.idx ?? null)],
      setSelect: [
        (chart) => {
          const { left, width } = chart.select;
          if (width < LEAST_DRAG_PX) return;
          chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          drawing.onZoom(chart.posToVal(left, "x"), chart.posToVal(left + width, "x"));
        },
      ],
    },
  };
}

/** Extremes have no line of their own, only the band between them. */
const EXTREME: uPlot.Series = { width: 0, points: { show: false } };
const LEAST_DRAG_PX = 6;

const HOUR_S = 3600;
const MINUTE_S = 60;
const DAY_S = 86_400;

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const HOURS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Times as on the rest of the page: 24 hours, with the date where a day begins. */
const TIMES: uPlot.Axis.Values = (_, splits, __, ___, increment) =>
  splits.map((second) => {
    const at = new Date(second * 1000);
    if (increment >= DAY_S || (increment >= HOUR_S && at.getHours() + at.getMinutes() === 0)) return DAY.format(at);
    return (increment < MINUTE_S ? SECONDS : HOURS).format(at);
  });

function spanOf(drawing: Drawing): [number, number] {
  const { from, to } = drawing.span();
  return [from, to];
}

function largest(chart: uPlot): number {
  const { min = -Infinity, max = Infinity } = chart.scales.x ?? {};
  const [times, ...columns] = chart.data;
  let top = 0;
  for (let index = 0; index < times.length; index++) {
    const time = times[index] ?? 0;
    if (time < min || time > max) continue;
    for (const column of columns) top = Math.max(top, column[index] ?? 0);
  }
  return top;
}

function fade(chart: uPlot, colour: string): CanvasGradient | string {
  const { top, height } = chart.bbox;
  if (!Number.isFinite(top + height) || height <= 0) return "transparent";
  const gradient = chart.ctx.createLinearGradient(0, top, 0, top + height);
  gradient.addColorStop(0, `${colour}40`);
  gradient.addColorStop(1, `${colour}05`);
  return gradient;
}

function drawBands(chart: uPlot, bands: readonly Band[], colour: (name: string) => string): void {
  const { ctx, bbox } = chart;
  const right = bbox.left + bbox.width;
  for (const { severity, from, to } of bands) {
    const start = Math.max(bbox.left, chart.valToPos(from, "x", true));
    const end = to === undefined ? right : Math.min(right, chart.valToPos(to, "x", true));
    if (end <= start && (end < bbox.left || start > right)) continue;
    ctx.save();
    ctx.fillStyle = colour(severity === "critical" ? "--band-critical" : "--band-warning");
    ctx.fillRect(start, bbox.top, Math.max(end - start, uPlot.pxRatio), bbox.height);
    ctx.restore();
  }
}

function drawThresholds(chart: uPlot, thresholds: readonly Threshold[], colour: (name: string) => string): void {
  const { ctx, bbox } = chart;
  const top = chart.scales.y?.max ?? 0;
  for (const { severity, value } of thresholds) {
    if (value > top) continue;
    const y = Math.round(chart.valToPos(value, "y", true)) + 0.5;
    ctx.save();
    ctx.strokeStyle = colour(severity === "critical" ? "--critical-line" : "--warning-line");
    ctx.lineWidth = uPlot.pxRatio;
    ctx.setLineDash([4 * uPlot.pxRatio, 4 * uPlot.pxRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }
}
