import type { MetricsRecord, TidingsError } from "@tidings/client";
import { useCallback, useEffect, useMemo, useRef } from "react";
import { useQuery, useValue } from "../parts/hooks.js";
import { useLateness } from "../session/ConnectionState.js";
import { useClient } from "../session/session.js";
import { refreshMs, stepFor, type Range, type Zoom } from "./ranges.js";
import { timeline, type Timeline } from "./timeline.js";

const MOST_ROWS = 1500;
const NONE: readonly MetricsRecord[] = [];

export interface Shown {
  timeline: Timeline;
  span: Zoom;
  stepS: number;
  loading: boolean;
  error: TidingsError | undefined;
}

/** The rows of the charts: of a zoom into the past, or of the last range of time, updated live. */
export function useTimeline(range: Range, zoom: Zoom | undefined): Shown {
  const client = useClient();
  const live = useValue(client.metrics.history);
  const { state } = useValue(client.status);
  const late = useLateness();
  const stepS = stepFor(zoom ? zoom.to - zoom.from : range.spanS);
  const { spanS } = range;

  const ask = useCallback(
    async (signal: AbortSignal) => {
      const now = Math.ceil(Date.now() / 1000);
      const { from, to } = zoom ?? { from: now - spanS, to: now + stepS };
      const query = { from: from * 1000, to: to * 1000, step: stepS === 1 ? 0 : stepS, limit: MOST_ROWS };
      // Without `metric` the answer has records.
      return (await client.request("GET /api/metrics/history", { query, signal })) as MetricsRecord[];
    },
    [client, spanS, stepS, zoom],
  );
  const { data, error, reload } = useQuery(ask, zoom ? 0 : refreshMs(stepS));

  // Records of a time without a connection are only in the history.
  const connections = useRef(0);
  useEffect(() => {
    if (state === "connected" && connections.current++ > 0) reload();
  }, [state, reload]);

  const newest = live.at(-1)?.timestamp ?? data?.at(-1)?.timestamp;
  // While data is late the charts move on, and show the missing data.
  const end = (newest ?? 0) / 1000 + Math.floor((late ?? 0) / 1000);
  const from = zoom?.from ?? end - spanS;
  const to = zoom?.to ?? end;
  const span = useMemo(() => ({ from, to }), [from, to]);
  const shown = useMemo(() => timeline(data ?? NONE, zoom ? NONE : live, stepS, span), [data, live, stepS, span, zoom]);
  return { timeline: shown, span, stepS, loading: data === undefined && error === undefined, error };
}
