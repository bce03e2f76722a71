import type { Store } from "@tidings/client";
import { TidingsError } from "@tidings/client";
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { ticking } from "./ticking.js";

/** Renders with a store's value, and again when it changes. */
export function useValue<T>({ subscribe, get }: Store<T>): T {
  return useSyncExternalStore(subscribe, get);
}

/** Renders with the time in ms, and again each second. */
export function useNow(): number {
  return useSyncExternalStore(ticking.subscribe, ticking.get);
}

export interface Query<T> {
  data: T | undefined;
  error: TidingsError | undefined;
  /** Requests again, now. */
  reload: () => void;
}

/**
 * Requests once, then every `everyMs` (0: never) while the page is visible. `ask` must be the same function in every
 * rendering: another one starts another query. The last answer is kept while later requests fail.
 */
export function useQuery<T>(ask: (signal: AbortSignal) => Promise<T>, everyMs = 0): Query<T> {
  const [state, setState] = useState<{ of: unknown; data?: T; error?: TidingsError }>({ of: ask });
  const [round, setRound] = useState(0);
  const reload = useCallback(() => setRound((before) => before + 1), []);
  useEffect(() => {
    const gone = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const turn = (): void => {
      ask(gone.signal).then(
        (data) => !gone.signal.aborted && setState({ of: ask, data }),
        (fault: unknown) => {
          if (gone.signal.aborted) return;
          const error = faultOf(fault);
          setState((before) => (before.of === ask ? { ...before, error } : { of: ask, error }));
        },
      ).finally(() => {
        if (everyMs > 0 && !gone.signal.aborted) timer = setTimeout(whenSeen, everyMs);
      });
    };
    const whenSeen = (): void => {
      if (document.hidden) document.addEventListener("visibilitychange", turn, { once: true, signal: gone.signal });
      else turn();
    };
    turn();
    return () => {
      gone.abort();
      clearTimeout(timer);
    };
  }, [ask, everyMs, round]);
  const mine = state.of === ask;
  const data = mine ? state.data : undefined;
  const error = mine ? state.error : undefined;
  return useMemo(() => ({ data, error, reload }), [data, error, reload]);
}

export function faultOf(fault: unknown): TidingsError {
  if (fault instanceof TidingsError) return fault;
  const message = fault instanceof Error ? fault.message : String(fault);
  return new TidingsError({ code: "unreachable", message: `The server could not be reached (${message}).`, retryable: true });
}

/** Text of an error for the user. */
export function explain(fault: TidingsError): string {
  if (fault.code === "forbidden") return "Your token does not allow this.";
  if (fault.code === "unauthorized") return "Sign in again: the token was refused or has expired.";
  return /[.!?]$/.test(fault.message) ? fault.message : `${fault.message}.`;
}

/** Runs one action at a time; `busy` while it runs, `error` if it failed. */
export function useAction<Arguments extends unknown[]>(
  act: (...given: Arguments) => Promise<unknown>,
): { run: (...given: Arguments) => void; busy: boolean; error: TidingsError | undefined; clear: () => void } {
  const [state, setState] = useState<{ busy: boolean; error?: TidingsError }>({ busy: false });
  const latest = useRef(act);
  useEffect(() => {
    latest.current = act;
  });
  const run = useCallback((...given: Arguments) => {
    setState({ busy: true });
    latest.current(...given).then(
      () => setState({ busy: false }),
      (fault: unknown) => setState({ busy: false, error: faultOf(fault) }),
    );
  }, []);
  const clear = useCallback(() => setState({ busy: false }), []);
  return { run, busy: state.busy, error: state.error, clear };
}
