import { useEffect, useMemo, useState } from "react";
import { useClient } from "../session/session.js";
import { Lines, type Line } from "./lines.js";

const BACKLOG = 500;
const SETTLED_MS = 2500;
const REFUSED = ["forbidden", "unknown_channel"];

export interface Tail {
  lines: readonly Line[];
  /** Number of lines so far, including dropped ones. */
  count: number;
  /** The token does not grant the channel `logs`. */
  refused: boolean;
  clear: () => void;
}

/** Follows the logs of all processes, beginning with the newest stored lines. */
export function useTail(): Tail {
  const client = useClient();
  const lines = useMemo(() => new Lines(), []);
  const [state, setState] = useState({ lines: lines.all, count: 0, refused: false });

  useEffect(() => {
    const gone = new AbortController();
    const { signal } = gone;
    let frame = 0;
    const show = (): void => {
      frame = 0;
      setState((before) => ({ ...before, lines: lines.all, count: lines.count }));
    };
    // The page is rendered at most once a frame.
    const soon = (): void => void (frame ||= requestAnimationFrame(show));
    client.logs.on(
      "line",
      (entry) => {
        lines.add([entry]);
        soon();
      },
      { signal },
    );
    client.on(
      "error",
      (fault) => {
        if (REFUSED.includes(fault.code)) setState((before) => ({ ...before, refused: true }));
      },
      { signal },
    );
    const release = client.logs.watch();
    const fill = (): void => {
      client.request("GET /api/logs", { query: { limit: BACKLOG }, signal }).then(
        (entries) => {
          if (lines.merge(entries)) soon();
        },
        () => undefined, // stored lines need more rights than live ones
      );
    };
    fill();
    // Lines from just before the subscription may be stored only after the first request.
    const again = setTimeout(fill, SETTLED_MS);
    // Lines from a time without a connection are only stored.
    client.on("welcome", fill, { signal });
    return () => {
      gone.abort();
      release();
      clearTimeout(again);
      cancelAnimationFrame(frame);
    };
  }, [client, lines]);

  return useMemo(
    () => ({
      ...state,
      clear: () => {
        lines.clear();
        setState((before) => ({ ...before, lines: lines.all }));
      },
    }),
    [state, lines],
  );
}
