import { CircleCheck, TriangleAlert, Unplug } from "lucide-react";
import type { ReactElement } from "react";
import { count, duration } from "../format.js";
import { useNow } from "../parts/hooks.js";
import { useGateway } from "../session/ConnectionState.js";
import type { Report, Watch } from "./resume.js";

/** Reports the messages that were recovered or missed at the last reconnect. */
export function ResumeReport({ watch }: { watch: Watch }): ReactElement | null {
  const { away, report } = watch;
  return (
    <div role="status" className="resume">
      {away ? <AwayNote since={away.since} /> : report ? <BackNote report={report} /> : null}
    </div>
  );
}

function AwayNote({ since }: { since: number }): ReactElement {
  const now = useNow();
  return (
    <div className="notice warning">
      <Unplug size={17} aria-hidden />
      <div>
        Away <span aria-hidden>for {duration(Math.max(0, now - since))}</span>. What is said meanwhile will be here when the
        connection is back.
      </div>
    </div>
  );
}

function BackNote({ report }: { report: Report }): ReactElement {
  const gateway = useGateway();
  const back = `Back on ${gateway ?? "a gateway"} after ${(report.awayMs / 1000).toFixed(1)} s`;
  if (report.verdict === "gap") {
    return (
      <div className="notice critical">
        <TriangleAlert size={17} aria-hidden />
        <div>{back}. The room no longer keeps all that was said meanwhile; what it keeps was read again.</div>
      </div>
    );
  }
  if (report.verdict === "unkept") {
    return (
      <div className="notice info">
        <CircleCheck size={17} aria-hidden />
        <div>{back}. This room keeps nothing, so there is nothing to recover.</div>
      </div>
    );
  }
  const places = report.first === report.last ? `#${report.first ?? 0}` : `#${report.first ?? 0} to #${report.last ?? 0}`;
  return (
    <div className="notice good">
      <CircleCheck size={17} aria-hidden />
      <div>
        {back}.{" "}
        {report.recovered === 0
          ? "Nothing was said meanwhile, and nothing was missed."
          : `${count(report.recovered, "message")} recovered (${places}), nothing missed.`}
      </div>
    </div>
  );
}
