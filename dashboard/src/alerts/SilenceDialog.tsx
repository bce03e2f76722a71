import type { Alert } from "@tidings/client";
import { useState, type ReactElement } from "react";
import { Dialog } from "../parts/Dialog.js";
import { explain, useAction } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useSession } from "../session/session.js";
import { DURATIONS, scopesOf, type Matcher } from "./silencing.js";

const FIELDS = ["id", "metric", "source", "type"];
const OPERATORS = ["=", "!=", "~", "!~"] as const;

/** Asks which alerts to silence, for how long, and why. */
export function SilenceDialog(props: { about: Alert | undefined; onClose: () => void; onDone: () => void }): ReactElement {
  const { client, who } = useSession();
  const { about, onClose, onDone } = props;
  const scopes = about ? scopesOf(about) : [];
  const [scope, setScope] = useState(0);
  const [own, setOwn] = useState<Matcher>({ name: "metric", op: "=", value: "" });
  const [seconds, setSeconds] = useState(3600);
  const [comment, setComment] = useState("");
  const saving = useAction(async () => {
    const matchers = scopes[scope]?.matchers ?? [own];
    const body = { matchers, duration: seconds, comment: comment.trim(), createdBy: who.username || "dashboard" };
    await client.request("POST /api/silences", { body });
    onDone();
    onClose();
  });
  return (
    <Dialog title="Silence alerts" onClose={onClose} onSubmit={saving.run}>
      {about ? (
        <label>
          Which
          <select value={scope} onChange={(event) => setScope(Number(event.target.value))}>
            {scopes.map(({ label }, index) => (
              <option key={label} value={index}>
                {label}
              </option>
            ))}
          </select>
        </label>
      ) : (
        <fieldset className="matcher">
          <legend>Which: alerts whose</legend>
          <input
            aria-label="Field: id, metric, source, type, or a label"
            list="alert-fields"
            value={own.name}
            onChange={(event) => setOwn({ ...own, name: event.target.value })}
            required
          />
          <datalist id="alert-fields">
            {FIELDS.map((field) => (
              <option key={field} value={field} />
            ))}
          </datalist>
          <select
            aria-label="How it compares"
            value={own.op}
            onChange={(event) => setOwn({ ...own, op: event.target.value as (typeof OPERATORS)[number] })}
          >
            {OPERATORS.map((operator) => (
              <option key={operator}>{operator}</option>
            ))}
          </select>
          <input
            aria-label="Value"
            value={own.value}
            onChange={(event) => setOwn({ ...own, value: event.target.value })}
            placeholder="cpu"
            required
          />
          <p className="note">
            <code>~</code> takes the value for a pattern, as in <code>latency*</code>.
          </p>
        </fieldset>
      )}
      <label>
        For
        <select value={seconds} onChange={(event) => setSeconds(Number(event.target.value))}>
          {DURATIONS.map((each) => (
            <option key={each.seconds} value={each.seconds}>
              {each.label}
            </option>
          ))}
        </select>
      </label>
      <label>
        Why
        <input
          value={comment}
          onChange={(event) => setComment(event.target.value)}
          maxLength={1000}
          placeholder="deploying 2.4"
          required
        />
      </label>
      {saving.error && <Notice tone="critical">{explain(saving.error)}</Notice>}
      <div className="row end">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="primary" disabled={saving.busy}>
          Silence
        </button>
      </div>
    </Dialog>
  );
}
