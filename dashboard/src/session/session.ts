import { TidingsClient, type Status } from "@tidings/client";
import { createContext, useContext } from "react";
import { Freshness } from "./freshness.js";
import { Interruptible } from "./interruptible.js";

/** This page's name and token. Both stay in this tab, because the token is a secret. */
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
    // The page asks for it again after a reload.
  }
}

/** One client, and the page's state beside it. */
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
    // There is only the pasted token. After a refusal it is sent again, and the answer has the reason.
    ...(who.token && { getToken: () => who.token }),
  });
  const status = rememberedStatus();
  if (status !== "online") client.setStatus(status).catch(() => undefined); // the dialog that sets a status shows its own errors
  return { client, line, freshness: new Freshness(client.metrics), who };
}

export const SessionContext = createContext<Session | undefined>(undefined);

export function useSession(): Session {
  const session = useContext(SessionContext);
  if (!session) throw new Error("outside of a session");
  return session;
}

export const useClient = (): TidingsClient => useSession().client;
