import type { Alert } from "@tidings/client";
import type { ReactElement } from "react";
import { count } from "../format.js";
import { linkTo, VIEWS, type ViewId } from "./routes.js";

export function Navigation({ current, alerts }: { current: ViewId; alerts: readonly Alert[] }): ReactElement {
  const worst = alerts.some(({ type }) => type === "critical") ? "critical" : "warning";
  return (
    <nav className="navigation" aria-label="Views">
      <ul>
        {VIEWS.map(({ id, title, icon: Icon }) => (
          <li key={id}>
            <a href={linkTo(id)} aria-current={id === current ? "page" : undefined}>
              <Icon size={18} strokeWidth={1.8} aria-hidden />
              <span>{title}</span>
              {id === "alerts" && alerts.length > 0 && (
                <b className={`badge ${worst}`} aria-label={count(alerts.length, "active alert")} role="img">
                  {alerts.length > 99 ? "99+" : alerts.length}
                </b>
              )}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}
