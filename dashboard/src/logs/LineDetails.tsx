import { X } from "lucide-react";
import type { ReactElement } from "react";
import type { Line } from "./lines.js";

/** All fields of a line. */
export function LineDetails({ line, onClose }: { line: Line; onClose: () => void }): ReactElement {
  const { entry } = line;
  return (
    <aside className="line-details" aria-label="The chosen line">
      <div className="row between">
        <b>{entry.event}</b>
        <button type="button" className="quiet icon" onClick={onClose}>
          <X size={16} aria-hidden />
          <span className="hidden">Close</span>
        </button>
      </div>
      <dl>
        <dt>time</dt>
        <dd>{new Date(entry.timestamp).toISOString()}</dd>
        <dt>level</dt>
        <dd>{entry.level}</dd>
        <dt>source</dt>
        <dd>{entry.source}</dd>
        {Object.entries(entry.fields ?? {}).map(([name, value]) => (
          <FieldRow key={name} name={name} value={value} />
        ))}
      </dl>
    </aside>
  );
}

function FieldRow({ name, value }: { name: string; value: unknown }): ReactElement {
  return (
    <>
      <dt>{name}</dt>
      <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
    </>
  );
}
