// The scope of a silence, in words and as matchers. Pure.

import type { Alert, Silence } from "@tidings/client";

export type Matcher = Silence["matchers"][number];

export const DURATIONS: readonly { label: string; seconds: number }[] = [
  { label: "15 minutes", seconds: 900 },
  { label: "1 hour", seconds: 3600 },
  { label: "4 hours", seconds: 14_400 },
  { label: "1 day", seconds: 86_400 },
  { label: "1 week", seconds: 604_800 },
];

export interface Scope {
  label: string;
  matchers: Matcher[];
}

/** Returns the scopes to choose from for an alert: the alert alone, its metric, its source. */
export function scopesOf(alert: Pick<Alert, "id" | "metric" | "source">): Scope[] {
  const scopes: Scope[] = [
    { label: `this alert (${alert.id})`, matchers: [{ name: "id", value: alert.id }] },
    { label: `every alert about ${alert.metric}`, matchers: [{ name: "metric", value: alert.metric }] },
  ];
  if (alert.source) scopes.push({ label: `every alert of ${alert.source}`, matchers: [{ name: "source", value: alert.source }] });
  return scopes;
}

export function matcherText({ name, op = "=", value }: Matcher): string {
  return `${name} ${op} ${value || "(none)"}`;
}

/** State of a silence at a time. */
export function standing({ startsAt, endsAt }: Pick<Silence, "startsAt" | "endsAt">, now: number): "waiting" | "on" | "over" {
  if (now >= endsAt) return "over";
  return now < startsAt ? "waiting" : "on";
}

/**
 * Returns the alerts to show: the active ones, with the fields that only the API has (what mutes them), where its
 * answer is not older.
 */
export function enriched(live: readonly Alert[], asked: readonly Alert[] | undefined): Alert[] {
  const details = new Map(asked?.map((alert) => [alert.id, alert]));
  const rank = ({ type }: Alert): number => (type === "critical" ? 0 : 1);
  return live
    .map((alert) => {
      const more = details.get(alert.id);
      return more && more.timestamp >= alert.timestamp ? { ...alert, ...more } : alert;
    })
    .sort((one, other) => rank(one) - rank(other) || other.timestamp - one.timestamp);
}
