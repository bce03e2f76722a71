// One timer and one rendering a second for everything on the page that counts seconds.

const watchers = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;

function tick(): void {
  now = Date.now();
  for (const watcher of [...watchers]) watcher();
}

export const ticking = {
  get: (): number => now,
  subscribe: (watcher: () => void): (() => void) => {
    watchers.add(watcher);
    if (timer === undefined) {
      now = Date.now();
      timer = setInterval(tick, 1000);
    }
    return () => {
      watchers.delete(watcher);
      if (watchers.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    };
  },
};
