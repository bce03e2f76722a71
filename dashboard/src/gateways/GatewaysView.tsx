import type { GatewayStats, Operations, TidingsClient } from "@tidings/client";
import { Server } from "lucide-react";
import { useCallback, useRef, type ReactElement } from "react";
import { ago, bytes, bytesPerSecond, count, duration, perSecond, percent, short } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { explain, useNow, useQuery } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useGateway } from "../session/ConnectionState.js";
import { useClient } from "../session/session.js";
import { CHARTED, extended, KEPT, LATE_MS, line, SAMPLE_S, samplesOf, type Sample, type Trail } from "./trail.js";

type MetricPoint = Extract<Operations["GET /api/metrics/history"]["answer"], { value: number }[]>[number];

const EVERY_MS = 1500;
/** Number of gateways whose last two minutes are read at once, with six requests each. */
const MOST_PASTS = 8;

export function GatewaysView(): ReactElement {
  const client = useClient();
  const mine = useGateway();
  const now = useNow();
  const kept = useRef<Map<string, Trail>>(new Map());
  const { data, error } = useQuery(
    useCallback(
      async (signal) => {
        const answer = await client.request("GET /api/gateways", { signal });
        const unknown = answer.filter(({ gateway }) => !kept.current.has(gateway)).slice(0, MOST_PASTS);
        const pasts = await Promise.all(unknown.map(async ({ gateway }) => [gateway, await pastOf(client, gateway, signal)] as const));
        return (kept.current = extended(kept.current, answer, Date.now(), new Map(pasts)));
      },
      [client],
    ),
    EVERY_MS,
  );
  const trails = [...(data?.values() ?? [])];
  return (
    <div className="view gateways">
      <div className="view-head">
        <h1>Gateways</h1>
        <span className="note">
          {trails.length > 0 && `${count(sum(trails, (stats) => stats.connections + stats.sseStreams), "connection")} on ${count(trails.length, "gateway")}`}
        </span>
      </div>
      {error && error.code !== "forbidden" && <Notice tone="warning">{explain(error)}</Notice>}
      {data && trails.length === 0 && <Empty icon={Server} title="No gateway answered" />}
      <ul className="cards">
        {trails.map((trail) => (
          <Card key={trail.latest.gateway} trail={trail} mine={trail.latest.gateway === mine} now={now} />
        ))}
      </ul>
    </div>
  );
}

/** Reads a gateway's metrics from before the page opened. Without them the lines begin now. */
async function pastOf(client: TidingsClient, source: string, signal: AbortSignal): Promise<readonly Sample[]> {
  const ask = async ([name, metric]: [string, string]): Promise<[string, MetricPoint[]]> => {
    const query = { source, metric, limit: KEPT * SAMPLE_S };
    // With `metric` the answer has points.
    return [name, (await client.request("GET /api/metrics/history", { query, signal })) as MetricPoint[]];
  };
  try {
    const histories = await Promise.all(Object.entries(CHARTED).map(ask));
    return samplesOf(Object.fromEntries(histories) as Record<keyof Sample, MetricPoint[]>);
  } catch {
    return [];
  }
}

function sum(trails: readonly Trail[], read: (stats: GatewayStats) => number): number {
  return trails.reduce((total, { latest }) => total + read(latest), 0);
}

function Card({ trail, mine, now }: { trail: Trail; mine: boolean; now: number }): ReactElement {
  const { latest, heardAt, past } = trail;
  const late = now - heardAt > LATE_MS;
  return (
    <li className={`panel gateway ${late ? "silent" : ""}`} data-gateway={latest.gateway}>
      <div className="panel-head">
        <h2>{latest.gateway}</h2>
        <span className="row">
          {mine && <span className="tag accent">you are here</span>}
          {latest.draining && <span className="tag warning">draining</span>}
          {latest.slowClients > 0 && <span className="tag warning">{latest.slowClients} slow</span>}
          {late ? <span className="tag critical">silent since {ago(heardAt, now)}</span> : <span className="tag good">up {duration(now - latest.startedAt)}</span>}
        </span>
      </div>
      <dl className="facts">
        <Fact name="Connections" value={short(latest.connections)} detail={latest.sseStreams > 0 ? `+${short(latest.sseStreams)} SSE` : ""} line={line(past.map((s) => s.connections), 5)} />
        <Fact name="Messages out" value={perSecond(latest.messagesOut)} detail={`${perSecond(latest.messagesIn)} in`} line={line(past.map((s) => s.messagesOut), 5)} />
        <Fact name="Bytes out" value={bytesPerSecond(latest.bytesOut)} line={line(past.map((s) => s.bytesOut), 1000)} />
        <Fact name="CPU" value={percent(latest.cpu)} line={line(past.map((s) => s.cpu), 100)} />
        <Fact name="Memory" value={bytes(latest.memory)} line={line(past.map((s) => s.memory), 1)} />
        <Fact name="Errors" value={perSecond(latest.errors)} tone={latest.errors > 0 ? "critical" : ""} line={line(past.map((s) => s.errors), 5)} />
        <Fact name="Users" value={short(latest.users)} detail={`in ${count(latest.rooms, "room")}`} />
        <Fact name="Slow clients" value={short(latest.slowClients)} detail="since its start" tone={latest.slowClients > 0 ? "warning" : ""} />
      </dl>
    </li>
  );
}

function Fact(props: { name: string; value: string; detail?: string; tone?: string; line?: string }): ReactElement {
  return (
    <div className={`fact ${props.tone ?? ""}`}>
      <dt>{props.name}</dt>
      <dd>
        <b>{props.value}</b>
        {props.detail && <small>{props.detail}</small>}
      </dd>
      {props.line !== undefined && (
        <dd className="sparkline" aria-hidden>
          <svg viewBox="0 0 100 24" preserveAspectRatio="none">
            {props.line && <polygon points={`${props.line} 100,24 ${props.line.split(",")[0] ?? ""},24`} />}
            <polyline points={props.line} />
          </svg>
        </dd>
      )}
    </div>
  );
}
