import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

const KEY = "tidings.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const watchers = new Set<() => void>();
let chosen = read();

function read(): Theme | undefined {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : undefined;
  } catch {
    return undefined; // storage is forbidden: use the system's theme
  }
}

function apply(): void {
  document.documentElement.dataset.theme = current();
  for (const watcher of watchers) watcher();
}

function current(): Theme {
  return chosen ?? (dark.matches ? "dark" : "light");
}

/** Applies the chosen theme, else the system's, before anything is drawn. */
export function startTheme(): void {
  dark.addEventListener("change", apply);
  apply();
}

/** Switches to the other theme. If that is the system's, the page follows the system again. */
export function toggleTheme(): void {
  const next = current() === "dark" ? "light" : "dark";
  chosen = next === (dark.matches ? "dark" : "light") ? undefined : next;
  try {
    if (chosen) localStorage.setItem(KEY, chosen);
    else localStorage.removeItem(KEY);
  } catch {
    // Storage is forbidden: the choice lasts until the page is reloaded.
  }
  apply();
}

export function useTheme(): Theme {
  return useSyncExternalStore((watcher) => {
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }, current);
}
