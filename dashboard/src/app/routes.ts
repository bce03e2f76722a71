import { Activity, BellRing, MessagesSquare, ScrollText, Server, Users, type LucideIcon } from "lucide-react";
import { useSyncExternalStore } from "react";

export interface View {
  id: ViewId;
  title: string;
  icon: LucideIcon;
}

export type ViewId = "overview" | "alerts" | "presence" | "rooms" | "gateways" | "logs";

export const VIEWS: readonly View[] = [
  { id: "overview", title: "Overview", icon: Activity },
  { id: "alerts", title: "Alerts", icon: BellRing },
  { id: "presence", title: "Presence", icon: Users },
  { id: "rooms", title: "Rooms", icon: MessagesSquare },
  { id: "gateways", title: "Gateways", icon: Server },
  { id: "logs", title: "Logs", icon: ScrollText },
];

export interface Route {
  view: ViewId;
  /** The subject of the view: a room's name. */
  subject: string | undefined;
}

/** Routes are in the fragment, so that links to them work without the server. */
export function parseRoute(hash: string): Route {
  const [, view = "", subject] = /^#\/([^/]*)(?:\/(.*))?$/.exec(hash) ?? [];
  const known = VIEWS.find(({ id }) => id === view);
  return { view: known?.id ?? "overview", subject: known && subject ? decoded(subject) : undefined };
}

export function linkTo(view: ViewId, subject?: string): string {
  return `#/${view}${subject === undefined ? "" : `/${encodeURIComponent(subject)}`}`;
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined; // malformed, perhaps typed by hand
  }
}

const subscribe = (watcher: () => void): (() => void) => {
  addEventListener("hashchange", watcher);
  return () => removeEventListener("hashchange", watcher);
};

export function useRoute(): Route {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  return parseRoute(hash);
}
