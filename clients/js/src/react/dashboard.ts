import { useEffect, useMemo } from "react";
import { TidingsClient } from "../client.js";
import type { Alert, MetricsRecord } from "../generated/wire.js";
import type { TidingsOptions } from "../options.js";
import { useStore } from "./watching.js";

export interface RealtimeDashboard {
  connected: boolean;
  /** Oldest first. */
  metrics: readonly MetricsRecord[];
  /** Active alerts. */
  alerts: readonly Alert[];
  latestMetrics: MetricsRecord | null;
}

/** Connects to a server while mounted and follows its metrics and alerts. Needs no provider. */
export function useRealtimeDashboard(url: string, options?: TidingsOptions): RealtimeDashboard {
  // A new client opens nothing, so strict mode may make two. New `options` in a later rendering change nothing.
  const client = useMemo(() => new TidingsClient(url, options), [url]);
  useEffect(() => {
    const release = [client.hold(), client.metrics.watch(), client.alerts.watch()];
    return () => release.forEach((each) => each());
  }, [client]);
  const { state } = useStore(client.status);
  const metrics = useStore(client.metrics.history);
  const alerts = useStore(client.alerts.active);
  return useMemo(
    () => ({ connected: state === "connected", metrics, alerts, latestMetrics: metrics.at(-1) ?? null }),
    [state, metrics, alerts],
  );
}
