// A status board with the React hook: live metrics and active alerts of the deployment.
import { StrictMode, type ReactElement } from "react";
import { createRoot } from "react-dom/client";
import { useRealtimeDashboard } from "@tidings/client/react";

function Gauge({ name, percent }: { name: string; percent: number }): ReactElement {
  return (
    <div role="meter" aria-label={name} aria-valuenow={Math.round(percent)} aria-valuemin={0} aria-valuemax={100}>
      {name} {percent.toFixed(1)} %
      <div className="bar" style={{ width: `${Math.min(100, percent)}%` }} />
    </div>
  );
}

function Board(): ReactElement {
  const { connected, metrics, alerts, latestMetrics } = useRealtimeDashboard("/");
  return (
    <main>
      <h1>Status board</h1>
      <p className="state" role="status">
        {connected ? `live, ${metrics.length} s of history` : "not connected; metrics may be out of date"}
      </p>
      {latestMetrics && (
        <>
          <Gauge name="CPU" percent={latestMetrics.cpu} />
          <Gauge name="Memory" percent={latestMetrics.memory} />
          <Gauge name="Disk" percent={latestMetrics.disk} />
          <p>
            {latestMetrics.requests.toFixed(1)} requests/s, {latestMetrics.errors.toFixed(1)} errors/s, 99th percentile{" "}
            {latestMetrics.latencyP99.toFixed(1)} ms
          </p>
        </>
      )}
      <ul aria-live="assertive">
        {alerts.map((alert) => (
          <li key={alert.id} className="alert">
            {alert.type}: {alert.message}
          </li>
        ))}
      </ul>
    </main>
  );
}

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <Board />
  </StrictMode>,
);
