import { ZoomOut } from "lucide-react";
import { useCallback, useEffect, useMemo, useState, useSyncExternalStore, type KeyboardEvent, type ReactElement } from "react";
import "uplot/dist/uPlot.min.css";
import { clockTime, duration, moment } from "../format.js";
import { explain, useQuery, useValue } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useLateness } from "../session/ConnectionState.js";
import { useClient } from "../session/session.js";
import { Chart } from "./Chart.js";
import { Crosshair } from "./crosshair.js";
import { useTimeline, type Shown } from "./history.js";
import { closer, RANGES, zoomOf, type Range, type Zoom } from "./ranges.js";
import { CHARTS } from "./series.js";
import { bandsOf, DEFAULT_RULES, thresholdsOf } from "./thresholds.js";
import { Vitals } from "./Vitals.js";

const RULES_MS = 60_000;

export function OverviewView(): ReactElement {
  const [range, setRange] = useState<Range>(RANGES[0]);
  const [zoom, setZoom] = useState<Zoom | undefined>();
  const crosshair = useMemo(() => new Crosshair(), []);
  const shown = useTimeline(range, zoom);
  const late = useLateness();
  const markings = useMarkings();

  const onZoom = useCallback((from: number, to: number) => {
    const wanted = zoomOf(from, to);
    if (wanted) setZoom(wanted);
  }, []);
  const spanName = zoom ? `${clockTime(zoom.from * 1000)} to ${clockTime(zoom.to * 1000)}` : `last ${range.name}`;
  const { span } = shown;

  const onKey = useCallback(
    (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const far = event.shiftKey ? 10 : 1;
      const act: Record<string, () => void> = {
        ArrowLeft: () => crosshair.step(-far),
        ArrowRight: () => crosshair.step(far),
        Home: () => crosshair.step(-Infinity),
        End: () => crosshair.step(Infinity),
        "+": () => setZoom((before) => closer(span, crosshair.time ?? span.to) ?? before),
        "-": () => setZoom(undefined),
        Escape: () => (crosshair.clear(), setZoom(undefined)),
      };
      const wanted = act[event.key];
      if (!wanted) return;
      event.preventDefault();
      wanted();
    },
    [crosshair, span],
  );

  return (
    <div className="view overview">
      <div className="view-head">
        <h1>Overview</h1>
        <div className="row">
          <When shown={shown} crosshair={crosshair} zoom={zoom} />
          {zoom && (
            <button type="button" className="small" onClick={() => setZoom(undefined)}>
              <ZoomOut size={14} aria-hidden /> Reset zoom
            </button>
          )}
          <div className="segments" role="group" aria-label="Stretch of time">
            {RANGES.map((each) => (
              <button
                key={each.id}
                type="button"
                aria-pressed={!zoom && each.id === range.id}
                title={`The last ${each.name}`}
                onClick={() => (setRange(each), setZoom(undefined))}
              >
                <span className="hidden">Last </span>
                {each.label}
              </button>
            ))}
          </div>
        </div>
      </div>
      <Vitals />
      {shown.error && (
        <Notice tone="warning">
          History could not be read: {explain(shown.error)} What is live is shown all the same.
        </Notice>
      )}
      <div className={late === undefined || zoom ? "charts" : "charts stale"} aria-busy={shown.loading}>
        {CHARTS.map((spec) => (
          <Chart
            key={spec.id}
            spec={spec}
            shown={shown.timeline}
            span={shown.span}
            spanName={spanName}
            markings={markings[spec.id] ?? NOTHING}
            crosshair={crosshair}
            onZoom={onZoom}
            onKey={onKey}
          />
        ))}
      </div>
      <p className="note hint">Drag over a chart to zoom in. With the keyboard: arrows, + and Escape on a chart.</p>
    </div>
  );
}

const NOTHING = { thresholds: [], bands: [] };

/** Thresholds of the rules in force, and the times of alerts. */
function useMarkings(): Record<string, { thresholds: ReturnType<typeof thresholdsOf>; bands: ReturnType<typeof bandsOf> }> {
  const client = useClient();
  const active = useValue(client.alerts.active);
  const rules = useQuery(useCallback((signal) => client.request("GET /api/rules", { signal }), [client]), RULES_MS).data;
  const past = useQuery(
    useCallback((signal) => client.request("GET /api/alerts/history", { query: { limit: 500 }, signal }), [client]),
    RULES_MS,
  );
  const { data, reload } = past;
  useEffect(() => reload(), [active, reload]);
  return useMemo(
    () =>
      Object.fromEntries(
        CHARTS.map((spec) => [
          spec.id,
          { thresholds: thresholdsOf(spec, rules?.rules ?? DEFAULT_RULES), bands: bandsOf(spec, data ?? []) },
        ]),
      ),
    [rules, data],
  );
}

/** The time under the crosshair, else the zoomed range, else the step of the charts. */
function When({ shown, crosshair, zoom }: { shown: Shown; crosshair: Crosshair; zoom: Zoom | undefined }): ReactElement {
  const index = useSyncExternalStore(crosshair.subscribe, crosshair.get);
  const time = index === null ? undefined : shown.timeline.times[index];
  const now = shown.span.to * 1000;
  if (time !== undefined) return <span className="when then">{moment(time * 1000, now)}</span>;
  if (zoom) {
    return (
      <span className="when">
        {moment(zoom.from * 1000, Date.now())} – {moment(zoom.to * 1000, Date.now())}
      </span>
    );
  }
  return <span className="when">{shown.stepS === 1 ? "each second" : `a point each ${duration(shown.stepS * 1000)}`}</span>;
}
