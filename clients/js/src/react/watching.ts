import { useMemo, useSyncExternalStore } from "react";
import type { Store } from "../store.js";

/** One frame of a screen: a busy room would otherwise render hundreds of times a second. */
const FRAME_MS = 16;

/** Renders with a store's value, at most once a frame. */
export function useStore<T>(store: Store<T>): T {
  const subscribe = useMemo(() => paced(store.subscribe, FRAME_MS), [store]);
  return useSyncExternalStore(subscribe, store.get, store.get);
}

type Subscribe = (watcher: () => void) => () => void;

/** Returns a subscription that reports the first change at once, and those within the next `ms` together. */
export function paced(subscribe: Subscribe, ms: number): Subscribe {
  return (watcher) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let missed = false;
    const turn = (): void => {
      timer = undefined;
      if (missed) notify();
    };
    const notify = (): void => {
      missed = timer !== undefined;
      if (missed) return;
      timer = setTimeout(turn, ms);
      watcher();
    };
    const unsubscribe = subscribe(notify);
    return () => {
      unsubscribe();
      clearTimeout(timer);
    };
  };
}
