import type { Alert } from "@tidings/client";
import { BellOff, Check, CircleCheck, OctagonAlert, TriangleAlert } from "lucide-react";
import { useCallback, useEffect, useState, type ReactElement } from "react";
import { ago } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { explain, useAction, useNow, useQuery, useValue } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useClient, useSession } from "../session/session.js";
import { PastAlerts } from "./PastAlerts.js";
import { SilenceDialog } from "./SilenceDialog.js";
import { Silences } from "./Silences.js";
import { enriched } from "./silencing.js";

/** Interval between requests for acknowledgements and silences. Alerts themselves arrive live. */
const EVERY_MS = 4000;

export function AlertsView(): ReactElement {
  const client = useClient();
  const live = useValue(client.alerts.active);
  const asked = useQuery(useCallback((signal) => client.request("GET /api/alerts", { signal }), [client]), EVERY_MS);
  const silences = useQuery(useCallback((signal) => client.request("GET /api/silences", { signal }), [client]), EVERY_MS);
  // The open silence dialog: undefined for none, null without an alert.
  const [silencing, setSilencing] = useState<Alert | null | undefined>();
  const { reload } = asked;
  const { reload: reloadSilences } = silences;

  useEffect(() => reload(), [live, reload]);

  const alerts = enriched(live, asked.data);
  const changed = useCallback(() => {
    reload();
    reloadSilences();
  }, [reload, reloadSilences]);

  return (
    <div className="view alerts">
      <div className="view-head">
        <h1>Alerts</h1>
        <button type="button" onClick={() => setSilencing(null)}>
          <BellOff size={15} aria-hidden /> New silence
        </button>
      </div>
      {asked.error && asked.error.code !== "forbidden" && <Notice tone="warning">{explain(asked.error)}</Notice>}
      <section className="panel" aria-labelledby="active-alerts">
        <div className="panel-head">
          <h2 id="active-alerts">Active</h2>
          <span className="tag">{alerts.length}</span>
        </div>
        {alerts.length === 0 ? (
          <Empty icon={CircleCheck} title="All is calm">
            An alert shows here within a second of crossing its threshold, and goes when it is over.
          </Empty>
        ) : (
          <ul className="alert-list">
            {alerts.map((alert) => (
              <ActiveAlert key={alert.id} alert={alert} onChanged={changed} onSilence={() => setSilencing(alert)} />
            ))}
          </ul>
        )}
      </section>
      <Silences query={silences} onChanged={changed} />
      <PastAlerts live={live} />
      {silencing !== undefined && (
        <SilenceDialog about={silencing ?? undefined} onClose={() => setSilencing(undefined)} onDone={changed} />
      )}
    </div>
  );
}

function ActiveAlert({ alert, onChanged, onSilence }: { alert: Alert; onChanged: () => void; onSilence: () => void }): ReactElement {
  const { client, who } = useSession();
  const now = useNow();
  const acknowledging = useAction(async () => {
    await client.request("POST /api/alerts/{id}/ack", { path: { id: alert.id }, body: { by: who.username || "dashboard" } });
    onChanged();
  });
  const Icon = alert.type === "critical" ? OctagonAlert : TriangleAlert;
  const quiet = [
    ...(alert.silencedBy?.length ? ["silenced"] : []),
    ...(alert.mutedBy?.length ? ["muted by a maintenance window"] : []),
    ...(alert.inhibitedBy?.length ? [`inhibited by ${alert.inhibitedBy.join(", ")}`] : []),
  ];
  return (
    <li className={`alert ${alert.type}`} data-alert={alert.id}>
      <Icon size={20} aria-hidden />
      <div className="grow">
        <p className="alert-message">
          <span className="hidden">{alert.type}: </span>
          {alert.message}
        </p>
        <p className="note row">
          <span className={`tag ${alert.type}`}>{alert.type}</span>
          <time dateTime={new Date(alert.timestamp).toISOString()}>{ago(alert.timestamp, now)}</time>
          {alert.source && <span>{alert.source}</span>}
          {Object.entries(alert.labels ?? {}).map(([name, value]) => (
            <code key={name}>
              {name}={value}
            </code>
          ))}
          {alert.acknowledged && (
            <span className="tag good">
              <Check size={12} aria-hidden /> acknowledged
            </span>
          )}
          {quiet.map((text) => (
            <span key={text} className="tag accent">
              <BellOff size={12} aria-hidden /> {text}
            </span>
          ))}
        </p>
        {acknowledging.error && <Notice tone="critical">{explain(acknowledging.error)}</Notice>}
      </div>
      <div className="row">
        {!alert.acknowledged && (
          <button type="button" onClick={acknowledging.run} disabled={acknowledging.busy}>
            <Check size={15} aria-hidden /> Acknowledge<span className="hidden"> {alert.id}</span>
          </button>
        )}
        {!alert.silencedBy?.length && (
          <button type="button" onClick={onSilence}>
            <BellOff size={15} aria-hidden /> Silence<span className="hidden"> {alert.id}</span>
          </button>
        )}
      </div>
    </li>
  );
}
