import { useCallback, type ReactElement } from "react";
import { linkTo, type ViewId } from "../app/routes.js";
import { useQuery, useValue } from "../parts/hooks.js";
import { useClient } from "../session/session.js";

const EVERY_MS = 3000;

/** The state of the deployment in one line. Each figure links to its view. */
export function Vitals(): ReactElement {
  const client = useClient();
  const alerts = useValue(client.alerts.active);
  const presence = useQuery(useCallback((signal) => client.request("GET /api/presence/stats", { signal }), [client]), EVERY_MS);
  const gateways = useQuery(useCallback((signal) => client.request("GET /api/gateways", { signal }), [client]), EVERY_MS);
  const critical = alerts.filter(({ type }) => type === "critical").length;
  const draining = gateways.data?.filter((each) => each.draining).length ?? 0;
  const slow = gateways.data?.reduce((sum, each) => sum + each.slowClients, 0) ?? 0;
  const sockets = gateways.data?.reduce((sum, each) => sum + each.connections + each.sseStreams, 0);
  return (
    <ul className="vitals">
      <Vital
        view="alerts"
        name={alerts.length === 1 ? "active alert" : "active alerts"}
        value={alerts.length}
        tone={critical > 0 ? "critical" : alerts.length > 0 ? "warning" : "good"}
        detail={critical > 0 ? `${critical} critical` : alerts.length > 0 ? "none critical" : "all is calm"}
      />
      <Vital view="presence" name="online" value={presence.data?.users} />
      <Vital view="gateways" name={sockets === 1 ? "connection" : "connections"} value={sockets} detail={slow > 0 ? `${slow} slow` : undefined} />
      <Vital view="rooms" name={presence.data?.rooms === 1 ? "room" : "rooms"} value={presence.data?.rooms} />
      <Vital
        view="gateways"
        name={gateways.data?.length === 1 ? "gateway" : "gateways"}
        value={gateways.data?.length}
        detail={draining > 0 ? `${draining} draining` : undefined}
      />
    </ul>
  );
}

function Vital(props: {
  view: ViewId;
  name: string;
  value: number | undefined;
  tone?: string;
  detail?: string | undefined;
}): ReactElement {
  return (
    <li>
      <a href={linkTo(props.view)} className={`vital ${props.tone ?? ""}`}>
        <b>{props.value?.toLocaleString("en") ?? "–"}</b> <span>{props.name}</span>
        {props.detail && <small>{props.detail}</small>}
      </a>
    </li>
  );
}
