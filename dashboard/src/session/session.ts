import { TidingsClient, type Status } from "@tidings/client";
import { createContext, useContext } from "react";
import { Freshness } from "./freshness.js";
import { Interruptible } from "./interruptible.js";

/** The name and the token that a page goes by. Both stay in this tab: the token opens doors. */
export interface Who {
  username: string;
  token: string;
}

const NAME = "tidings.username";
const TOKEN = "tidings.token";
const STATUS = "tidings.status";

export function rememberedWho(): Who {
  return { username: get(NAME), token: get(TOKEN) };
}

export function remember({ username, token }: Who): void {
  put(NAME, username);
  put(TOKEN, token);
}

export function rememberedStatus(): Status {
  const kept = get(STATUS);
  return kept === "away" || kept === "busy" ? kept : "online";
}

export function rememberStatus(status: Status): void {
  put(STATUS, status === "online" ? "" : status);
}

function get(key: string): string {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return ""; // forbidden by the browser's settings
  }
}

function put(key: string, value: string): void {
  try {
    if (value) sessionStorage.setItem(key, value);
    else sessionStorage.removeItem(key);
  } catch {
    // It is asked for again after a reload.
  }
}

/** One client, and what the page keeps beside it. */
export interface Session {
  client: TidingsClient;
  line: Interruptible;
  freshness: Freshness;
  who: Who;
}

export function makeSession(who: Who): Session {
  const line = new Interruptible();
  const client = new TidingsClient("/", {
    username: who.username || "dashboard",
    WebSocket: line.WebSocket,
    // There is one token, pasted by hand. Shown again where it was refused, it is answered with the reason.
    ...(who.token && { getToken: () => who.token }),
  });
  const status = rememberedStatus();
  if (status !== "online") client.setStatus(status).catch(() => undefined); // whoever sets it by hand is told
  return { client, line, freshness: new Freshness(client.metrics), who };
}

export const SessionContext = createContext<Session | undefined>(undefined);

export function useSession(): Session {
  const session = useContext(SessionContext);
  if (!session) throw new Error("outside of a session");
  return session;
}

export const useClient = (): TidingsClient => useSession().client;
