import { TidingsError } from "@tidings/client";
import { useEffect, useState } from "react";
import { useValue } from "../parts/hooks.js";
import { useSession } from "./session.js";

export type Admission = { state: "in" } | { state: "out"; reason: string | undefined };

const IN: Admission = { state: "in" };

/** Whether the server accepts this page. A browser hides why a WebSocket was refused, so an HTTP request finds out. */
export function useAdmission(): Admission {
  const { client, who } = useSession();
  const { state, error } = useValue(client.status);
  const [refusedOf, setRefusedOf] = useState<unknown>();

  const doubtful = state === "suspended" && client.welcome === undefined;
  useEffect(() => {
    if (!doubtful) return;
    const gone = new AbortController();
    client.request("GET /api/presence/stats", { signal: gone.signal }).catch((fault: unknown) => {
      if (gone.signal.aborted || !(fault instanceof TidingsError) || fault.code !== "unauthorized") return;
      client.close();
      setRefusedOf(client);
    });
    return () => gone.abort();
  }, [client, doubtful]);

  if (state === "failed" && error?.code === "unauthorized") return { state: "out", reason: who.token && error.message };
  if (refusedOf === client) return { state: "out", reason: undefined };
  return IN;
}
