import type { Alert } from "@tidings/client";
import { CircleCheck, OctagonAlert, TriangleAlert, X } from "lucide-react";
import { useEffect, useState, type ReactElement } from "react";
import { useClient } from "../session/session.js";
import { linkTo } from "./routes.js";

interface Toast {
  key: number;
  alert: Alert;
  resolved: boolean;
}

const SHOWN_MS = 8000;
const MOST = 3;

/** Shows changes of alerts while the page is open. Earlier ones are in the list of alerts. */
export function AlertToasts(): ReactElement {
  const client = useClient();
  const [toasts, setToasts] = useState<readonly Toast[]>([]);

  useEffect(() => {
    const gone = new AbortController();
    const { signal } = gone;
    const timers = new Set<ReturnType<typeof setTimeout>>();
    let begun = false;
    let next = 0;
    const show = (alert: Alert, resolved: boolean): void => {
      if (!begun) return;
      const toast = { key: next++, alert, resolved };
      // One toast for each alert, with its newest state.
      setToasts((before) => [...before.filter((each) => each.alert.id !== alert.id), toast].slice(-MOST));
      const timer = setTimeout(() => {
        timers.delete(timer);
        setToasts((before) => before.filter(({ key }) => key !== toast.key));
      }, SHOWN_MS);
      timers.add(timer);
    };
    client.alerts.on("raised", (alert) => show(alert, false), { signal });
    client.alerts.on("resolved", (alert) => show(alert, true), { signal });
    client.on("message", ({ type }) => (begun ||= type === "initial_state"), { signal });
    return () => {
      gone.abort();
      timers.forEach(clearTimeout);
    };
  }, [client]);

  return (
    <div className="toasts" role="status" aria-label="What just changed">
      {toasts.map(({ key, alert, resolved }) => {
        const Icon = resolved ? CircleCheck : alert.type === "critical" ? OctagonAlert : TriangleAlert;
        return (
          <div key={key} className={`toast ${resolved ? "good" : alert.type}`}>
            <Icon size={18} aria-hidden />
            <a href={linkTo("alerts")}>{resolved ? `Over: ${alert.message}` : alert.message}</a>
            <button
              type="button"
              className="quiet icon"
              onClick={() => setToasts((before) => before.filter((each) => each.key !== key))}
            >
              <X size={15} aria-hidden />
              <span className="hidden">Dismiss</span>
            </button>
          </div>
        );
      })}
    </div>
  );
}
