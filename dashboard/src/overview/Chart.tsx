import { useEffect, useMemo, useRef, useSyncExternalStore, type KeyboardEvent, type ReactElement } from "react";
import uPlot from "uplot";
import { useTheme } from "../app/theme.js";
import type { Crosshair } from "./crosshair.js";
import { optionsOf, type Markings } from "./draw.js";
import type { Zoom } from "./ranges.js";
import type { ChartSpec } from "./series.js";
import { columns, type Timeline } from "./timeline.js";

export interface ChartProps {
  spec: ChartSpec;
  shown: Timeline;
  span: Zoom;
  /** The range of time in words, for screen readers. */
  spanName: string;
  markings: Markings;
  crosshair: Crosshair;
  onZoom: (from: number, to: number) => void;
  onKey: (event: KeyboardEvent) => void;
}

const HEIGHT_PX = 138;

/** One metric: its value now or under the crosshair, its line, and the thresholds of alerts. */
export function Chart({ spec, shown, span, spanName, markings, crosshair, onZoom, onKey }: ChartProps): ReactElement {
  const data = useMemo(() => columns(spec, shown), [spec, shown]);
  const summary = useSummary(spec, shown, spanName);
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot>(undefined);
  const theme = useTheme();
  // Values that the chart reads when it draws. Only another theme makes a new chart.
  const latest = useRef({ data, span, markings, onZoom });

  useEffect(() => {
    const box = place.current;
    if (!box) return;
    const made = new uPlot(
      optionsOf({
        spec,
        width: box.clientWidth || 300,
        height: HEIGHT_PX,
        sync: crosshair.sync.key,
        markings: () => latest.current.markings,
        span: () => latest.current.span,
        onCursor: (index) => crosshair.at(index),
        onZoom: (from, to) => latest.current.onZoom(from, to),
      }),
      latest.current.data,
      box,
    );
    chart.current = made;
    const release = crosshair.add(made);
    const sizes = new ResizeObserver(() => {
      if (box.clientWidth > 0) made.setSize({ width: box.clientWidth, height: HEIGHT_PX });
    });
    sizes.observe(box);
    return () => {
      sizes.disconnect();
      release();
      made.destroy();
      chart.current = undefined;
    };
  }, [spec, crosshair, theme]);

  useEffect(() => {
    latest.current = { data, span, markings, onZoom };
    chart.current?.setData(data);
  }, [data, span, markings, onZoom]);

  return (
    <section className="panel chart" aria-label={spec.title} data-chart={spec.id}>
      <header>
        <h2>{spec.title}</h2>
        <Values spec={spec} shown={shown} crosshair={crosshair} />
      </header>
      <div
        className="plot"
        ref={place}
        role="group"
        aria-roledescription="chart"
        aria-label={summary}
        tabIndex={0}
        onKeyDown={onKey}
        onBlur={() => crosshair.clear()}
      />
      <Limits spec={spec} markings={markings} />
    </section>
  );
}

/** The values under the crosshair, else the newest ones. */
function Values({ spec, shown, crosshair }: Pick<ChartProps, "spec" | "shown" | "crosshair">): ReactElement {
  const index = useSyncExternalStore(crosshair.subscribe, crosshair.get);
  const row = index === null ? shown.rows.findLast((each) => each !== null) : shown.rows[index];
  return (
    <div className={index === null ? "values" : "values then"}>
      {spec.series.map(({ metric, label, colour, read }) => (
        <span key={metric} data-metric={metric}>
          {spec.series.length > 1 && (
            <small>
              <i className={`swatch ${colour.slice(2)}`} aria-hidden /> {label}
            </small>
          )}
          <b>{row ? spec.format(read(row)) : "–"}</b>
        </span>
      ))}
    </div>
  );
}

/** The thresholds in words, also those outside of the scale. */
function Limits({ spec, markings }: Pick<ChartProps, "spec" | "markings">): ReactElement | null {
  if (markings.thresholds.length === 0) return null;
  return (
    <p className="limits">
      {markings.thresholds.map(({ metric, severity, value }) => (
        <span key={metric + severity} className={severity}>
          {severity} at {spec.format(value).replace(/\.0(?= )/, "")}
        </span>
      ))}
    </p>
  );
}

function useSummary(spec: ChartSpec, shown: Timeline, spanName: string): string {
  return useMemo(() => {
    const rows = shown.rows.filter((row) => row !== null);
    const parts = spec.series.map(({ label, read }) => {
      const values = rows.map(read);
      const newest = values.at(-1);
      if (newest === undefined) return `${label}: no data`;
      const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
      return `${label} ${spec.format(newest)}, between ${spec.format(low)} and ${spec.format(high)}`;
    });
    return `${spec.title}, ${spanName}. ${parts.join("; ")}. Arrow keys move the crosshair, plus zooms in, Escape goes back.`;
  }, [spec, shown, spanName]);
}
