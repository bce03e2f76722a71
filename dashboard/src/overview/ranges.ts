// The ranges of time to show, and the steps in which they are requested. Pure.

const MINUTE_S = 60;
const HOUR_S = 3600;
const DAY_S = 86_400;

export interface Range {
  id: string;
  /** Text of the button. */
  label: string;
  /** Text for screen readers. */
  name: string;
  spanS: number;
}

export const RANGES: readonly [Range, ...Range[]] = [
  { id: "5m", label: "5 min", name: "5 minutes", spanS: 5 * MINUTE_S },
  { id: "1h", label: "1 h", name: "1 hour", spanS: HOUR_S },
  { id: "6h", label: "6 h", name: "6 hours", spanS: 6 * HOUR_S },
  { id: "24h", label: "24 h", name: "24 hours", spanS: DAY_S },
  { id: "7d", label: "7 d", name: "7 days", spanS: 7 * DAY_S },
  { id: "30d", label: "30 d", name: "30 days", spanS: 30 * DAY_S },
];

/** Steps in seconds that every tier of the store serves without rounding. */
const STEPS = [1, 5, 10, 30, MINUTE_S, 2 * MINUTE_S, 5 * MINUTE_S, 10 * MINUTE_S, 15 * MINUTE_S, 30 * MINUTE_S, HOUR_S];
/** About one row for two pixels of a wide chart; the server answers 1500 at most. */
const MOST_ROWS = 750;
/** Shortest zoom; a shorter drag is an accident. */
export const LEAST_SPAN_S = 10;

/** Returns the finest step for a span that needs no more rows than a chart can show. */
export function stepFor(spanS: number): number {
  return STEPS.find((step) => spanS / step <= MOST_ROWS) ?? HOUR_S;
}

/** Interval in ms between requests for rows of a step; 0 where the records arrive live. */
export function refreshMs(stepS: number): number {
  return stepS === 1 ? 0 : Math.min(60, Math.max(10, stepS)) * 1000;
}

export interface Zoom {
  /** Both in seconds since 1970. */
  from: number;
  to: number;
}

/** Returns a zoom with at least the shortest span, or undefined for an accidental drag. */
export function zoomOf(from: number, to: number): Zoom | undefined {
  return to - from >= LEAST_SPAN_S ? { from: Math.floor(from), to: Math.ceil(to) } : undefined;
}

/** Returns half of the shown range around `centre`, down to the shortest zoom. */
export function closer(shown: Zoom, centre: number): Zoom | undefined {
  const span = (shown.to - shown.from) / 2;
  const from = Math.min(Math.max(shown.from, centre - span / 2), shown.to - span);
  return zoomOf(from, from + span);
}
