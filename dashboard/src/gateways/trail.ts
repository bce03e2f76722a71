// What gateways said of themselves, asked again and again. Pure.

import type { GatewayStats } from "@tidings/client";

export interface Trail {
  latest: GatewayStats;
  /** When it last answered, in ms. */
  heardAt: number;
  past: readonly GatewayStats[];
}

export const KEPT = 60;
/** One that did not answer for so long is no longer shown. */
export const FORGOTTEN_MS = 30_000;
/** One that missed an answer or two is late, not gone. */
export const LATE_MS = 5000;

/** Adds an answer to the trails. A gateway started anew (another `boot`) begins a new one. */
export function extended(trails: ReadonlyMap<string, Trail>, answer: readonly GatewayStats[], now: number): Map<string, Trail> {
  const after = new Map([...trails].filter(([, { heardAt }]) => now - heardAt < FORGOTTEN_MS));
  for (const stats of answer) {
    const before = after.get(stats.gateway);
    const past = before?.latest.boot === stats.boot ? before.past : [];
    after.set(stats.gateway, { latest: stats, heardAt: now, past: [...past, stats].slice(-KEPT) });
  }
  return new Map([...after].sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** Points of a line in a box of 100 by 24, newest at the right. */
export function line(values: readonly number[], least: number): string {
  const top = Math.max(least, ...values);
  return values
    .map((value, index) => {
      const x = 100 - ((values.length - 1 - index) * 100) / (KEPT - 1);
      return `${x.toFixed(1)},${(23 - (value / top) * 21).toFixed(1)}`;
    })
    .join(" ");
}
