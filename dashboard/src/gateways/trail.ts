// Samples of the gateways' figures, polled. Pure.

import type { GatewayStats } from "@tidings/client";

export interface Trail {
  latest: GatewayStats;
  /** When it last answered, in ms. */
  heardAt: number;
  /** Oldest first, about one every two seconds. */
  past: readonly Sample[];
}

/** Figures that are shown as lines, with their names in the gateway's metrics. */
export const CHARTED = {
  connections: "connections",
  messagesOut: "messages_out",
  bytesOut: "bytes_out",
  cpu: "process_cpu",
  memory: "memory_bytes",
  errors: "errors",
} as const;

export type Sample = Pick<GatewayStats, keyof typeof CHARTED>;

export const KEPT = 60;
export const SAMPLE_S = 2;
/** Silence after which a gateway is no longer shown. */
export const FORGOTTEN_MS = 30_000;
/** Silence after which a gateway is shown as late. */
export const LATE_MS = 5000;

/** Adds an answer to the trails. A new trail begins with the gateway's history. */
export function extended(
  trails: ReadonlyMap<string, Trail>,
  answer: readonly GatewayStats[],
  now: number,
  before: ReadonlyMap<string, readonly Sample[]> = new Map(),
): Map<string, Trail> {
  const after = new Map([...trails].filter(([, { heardAt }]) => now - heardAt < FORGOTTEN_MS));
  for (const stats of answer) {
    const past = after.get(stats.gateway)?.past ?? before.get(stats.gateway) ?? [];
    after.set(stats.gateway, { latest: stats, heardAt: now, past: [...past, stats].slice(-KEPT) });
  }
  return new Map([...after].sort(([one], [other]) => (one < other ? -1 : 1)));
}

type Points = readonly { timestamp: number; value: number }[];

/** Returns samples from the history of a gateway's metrics, one a second. */
export function samplesOf(history: Readonly<Record<keyof Sample, Points>>): Sample[] {
  const byTime = new Map<number, Partial<Sample>>();
  for (const [name, points] of Object.entries(history)) {
    for (const { timestamp, value } of points) byTime.set(timestamp, { ...byTime.get(timestamp), [name]: value });
  }
  return [...byTime]
    .filter(([timestamp, sample]) => (timestamp / 1000) % SAMPLE_S === 0 && Object.keys(sample).length === Object.keys(CHARTED).length)
    .sort(([one], [other]) => one - other)
    .map(([, sample]) => sample as Sample);
}

/** Points of an SVG line in a box of 100 by 24, newest at the right. */
export function line(values: readonly number[], least: number): string {
  const top = Math.max(least, ...values);
  return values
    .map((value, index) => {
      const x = 100 - ((values.length - 1 - index) * 100) / (KEPT - 1);
      return `${x.toFixed(1)},${(23 - (value / top) * 21).toFixed(1)}`;
    })
    .join(" ");
}
