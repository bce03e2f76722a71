import type { Silence } from "@tidings/client";
import { BellOff } from "lucide-react";
import type { ReactElement } from "react";
import { duration } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { explain, useAction, useNow, type Query } from "../parts/hooks.js";
import { Notice } from "../parts/Notice.js";
import { useClient } from "../session/session.js";
import { matcherText, standing } from "./silencing.js";

export function Silences({ query, onChanged }: { query: Query<Silence[]>; onChanged: () => void }): ReactElement {
  const now = useNow();
  const silences = (query.data ?? []).filter((silence) => standing(silence, now) !== "over");
  return (
    <section className="panel" aria-labelledby="silences">
      <div className="panel-head">
        <h2 id="silences">Silences</h2>
        <span className="tag">{silences.length}</span>
      </div>
      {silences.length === 0 ? (
        <Empty icon={BellOff} title="Nothing is silenced" compact>
          A silence keeps alerts from being announced for a while. They still show here.
        </Empty>
      ) : (
        <ul className="lines">
          {silences.map((silence) => (
            <Line key={silence.id} silence={silence} now={now} onChanged={onChanged} />
          ))}
        </ul>
      )}
    </section>
  );
}

function Line({ silence, now, onChanged }: { silence: Silence; now: number; onChanged: () => void }): ReactElement {
  const client = useClient();
  const ending = useAction(async () => {
    await client.request("DELETE /api/silences/{id}", { path: { id: silence.id ?? "" } });
    onChanged();
  });
  const waits = standing(silence, now) === "waiting";
  return (
    <li className="line" data-silence={silence.id}>
      <div className="grow">
        <p>
          {silence.matchers.map((matcher) => (
            <code key={matcherText(matcher)} className="tag">
              {matcherText(matcher)}
            </code>
          ))}{" "}
          {silence.comment}
        </p>
        <p className="note">
          {waits ? `begins in ${duration(silence.startsAt - now)}` : `${duration(silence.endsAt - now)} left`}
          {silence.createdBy && `, by ${silence.createdBy}`}
        </p>
        {ending.error && <Notice tone="critical">{explain(ending.error)}</Notice>}
      </div>
      <button type="button" onClick={ending.run} disabled={ending.busy}>
        Expire<span className="hidden"> the silence {silence.comment}</span>
      </button>
    </li>
  );
}
