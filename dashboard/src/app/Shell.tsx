import { useEffect, useRef, type ReactElement } from "react";
import { AlertsView } from "../alerts/AlertsView.js";
import { GatewaysView } from "../gateways/GatewaysView.js";
import { LogsView } from "../logs/LogsView.js";
import { OverviewView } from "../overview/OverviewView.js";
import { useValue } from "../parts/hooks.js";
import { PresenceView } from "../presence/PresenceView.js";
import { RoomsView } from "../rooms/RoomsView.js";
import { Rights } from "../session/Rights.js";
import { useClient, type Who } from "../session/session.js";
import { SignIn } from "../session/SignIn.js";
import { useAdmission } from "../session/admission.js";
import { AlertToasts } from "./AlertToasts.js";
import { Header } from "./Header.js";
import { Navigation } from "./Navigation.js";
import { useRoute, VIEWS, type Route } from "./routes.js";

export function Shell({ become }: { become: (who: Who) => void }): ReactElement {
  const client = useClient();
  const admission = useAdmission();
  const route = useRoute();
  const alerts = useValue(client.alerts.active);
  const title = VIEWS.find(({ id }) => id === route.view)?.title ?? "";

  useEffect(() => {
    const release = [client.metrics.watch(), client.alerts.watch()];
    return () => release.forEach((each) => each());
  }, [client]);

  useEffect(() => {
    document.title = `${alerts.length > 0 ? `(${alerts.length}) ` : ""}${title} · Tidings`;
  }, [alerts.length, title]);

  // After a click on a link the focus moves to the view that it opens.
  const main = useRef<HTMLElement>(null);
  const shown = useRef(route.view);
  useEffect(() => {
    if (shown.current !== route.view) main.current?.focus({ preventScroll: true });
    shown.current = route.view;
  }, [route.view]);

  const inside = admission.state === "in";
  return (
    <div className="shell">
      <a className="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to content
      </a>
      <Header become={become} />
      {inside && <Navigation current={route.view} alerts={alerts} />}
      <main id="main" ref={main} tabIndex={-1} className="main" aria-label={inside ? title : "Sign in"}>
        {inside ? (
          <>
            <Rights />
            <Shown route={route} />
          </>
        ) : (
          <SignIn reason={admission.reason} become={become} />
        )}
      </main>
      <AlertToasts />
    </div>
  );
}

function Shown({ route }: { route: Route }): ReactElement {
  switch (route.view) {
    case "overview":
      return <OverviewView />;
    case "alerts":
      return <AlertsView />;
    case "presence":
      return <PresenceView />;
    case "rooms":
      return <RoomsView subject={route.subject} />;
    case "gateways":
      return <GatewaysView />;
    case "logs":
      return <LogsView />;
  }
}
