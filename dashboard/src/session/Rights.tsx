import { TidingsError } from "@tidings/client";
import { useEffect, useState, type ReactElement } from "react";
import { useValue } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useSession } from "./session.js";

/** Channels that a token may lack, with an operation that tests each. */
const QUESTIONS = [
  { name: "metrics", operation: "GET /api/gateways" },
  { name: "alerts", operation: "GET /api/alerts" },
  { name: "presence", operation: "GET /api/presence/stats" },
] as const;

/** Names the channels that the token does not grant, since their views stay empty. */
export function Rights(): ReactElement | null {
  const { client, who } = useSession();
  const { state } = useValue(client.status);
  const [missing, setMissing] = useState<readonly string[]>([]);
  const connected = state === "connected";

  useEffect(() => {
    if (!connected || !who.token) return setMissing([]);
    const gone = new AbortController();
    const asked = QUESTIONS.map(async ({ name, operation }) => {
      try {
        await client.request(operation, { signal: gone.signal });
      } catch (fault) {
        if (fault instanceof TidingsError && fault.code === "forbidden") return [name];
      }
      return [];
    });
    void Promise.all(asked).then((found) => !gone.signal.aborted && setMissing(found.flat()));
    return () => gone.abort();
  }, [client, who.token, connected]);

  if (missing.length === 0) return null;
  return (
    <Notice tone="warning">
      Your token does not allow to see <b>{missing.join(", ")}</b>: these views stay empty. Its <code>tidings.channels</code>{" "}
      claim has to name them, or <code>admin</code> has to be true.
    </Notice>
  );
}
