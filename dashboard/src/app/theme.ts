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
    return undefined; // storage is forbidden: the system's theme it is
  }
}

function apply(): void {
  document.documentElement.dataset.theme = current();
  for (const watcher of watchers) watcher();
}

function current(): Theme {
  return chosen ?? (dark.matches ? "dark" : "light");
}

/** Shows what was chosen, else what the system has, before anything is drawn. */
export function startTheme(): void {
  dark.addEventListener("change", apply);
  apply();
}

/** Chooses the other theme; choosing the system's own means following it again. */
export function toggleTheme(): void {
  const next = current() === "dark" ? "light" : "dark";
  chosen = next === (dark.matches ? "dark" : "light") ? undefined : next;
  try {
    if (chosen) localStorage.setItem(KEY, chosen);
    else localStorage.removeItem(KEY);
  } catch {
    // Forbidden: it holds until the page is loaded again.
  }
  apply();
}

export function useTheme(): Theme {
  return useSyncExternalStore((watcher) => {
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }, current);
}
