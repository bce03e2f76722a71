import { TriangleAlert } from "lucide-react";
import { useEffect, useState, type ReactElement } from "react";
import { duration } from "../format.js";
import { useNow, useValue } from "../parts/hooks.js";
import { lateness } from "../overview/timeline.js";
import { useSession } from "./session.js";

/** The state of the connection, always visible. */
export function ConnectionState(): ReactElement {
  const { client } = useSession();
  const status = useValue(client.status);
  const gateway = useGateway();
  const { state } = status;

  const word = {
    connected: `Connected to ${gateway ?? "a gateway"}`,
    connecting: "Connecting",
    suspended: "Connection lost, reconnecting",
    failed: "Refused",
    closed: "Not connected",
  }[state];

  return (
    <div className="connection" data-state={state} title={state === "connected" ? "" : (status.reason ?? "")}>
      <span className="lamp" aria-hidden />
      {/* Seconds that count down are for the eyes: read out each, they would drown everything else. */}
      <span role="status" className="hidden">
        {word}
      </span>
      <span aria-hidden className="connection-text">
        {state === "connected" && (
          <>
            <span className="wide-only">Live from </span>
            <b>{gateway ?? "a gateway"}</b>
            {status.transport === "sse" && <span className="wide-only"> over SSE</span>}
          </>
        )}
        {state === "connecting" && "Connecting …"}
        {state === "suspended" && <Countdown until={status.retryAt ?? 0} />}
        {state === "failed" && `Refused: ${status.reason ?? status.error?.message ?? "no reason given"}`}
        {state === "closed" && "Not connected"}
      </span>
      {/* By hand also before the time that the server asked for: one person is no stampede. */}
      {state === "suspended" && (
        <button type="button" className="small" onClick={() => void client.connect().catch(() => undefined)}>
          Now
        </button>
      )}
      {state === "failed" && (
        <button type="button" className="small" onClick={() => void client.connect().catch(() => undefined)}>
          Try again
        </button>
      )}
      <Late />
    </div>
  );
}

function Countdown({ until }: { until: number }): ReactElement {
  const now = useNow();
  const seconds = Math.max(0, Math.ceil((until - now) / 1000));
  return <>{seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting …"}</>;
}

function Late(): ReactElement | null {
  const late = useLateness();
  if (late === undefined) return null;
  return (
    <span className="late">
      <TriangleAlert size={14} aria-hidden /> data is {duration(late)} late
    </span>
  );
}

/** How late the newest metrics are, in ms; undefined while they are not. */
export function useLateness(): number | undefined {
  const { client, freshness } = useSession();
  const latest = useValue(client.metrics.latest);
  const now = useNow();
  return lateness(latest, freshness.receivedAt, Math.max(now, freshness.receivedAt ?? 0));
}

/** The gateway of the current or last connection. */
export function useGateway(): string | undefined {
  const { client } = useSession();
  const [gateway, setGateway] = useState(client.welcome?.gateway);
  useEffect(() => {
    setGateway(client.welcome?.gateway);
    return client.on("welcome", (welcome) => setGateway(welcome.gateway));
  }, [client]);
  return gateway;
}
