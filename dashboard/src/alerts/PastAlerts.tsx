import type { Alert, AlertLogEntry } from "@tidings/client";
import { History } from "lucide-react";
import { useCallback, useEffect, useState, type ReactElement } from "react";
import { duration, moment } from "../format.js";
import { Empty } from "../parts/Empty.js";
import { useNow, useQuery } from "../parts/hooks.js";
import { useClient } from "../session/session.js";

const FIRST = 25;
const MOST = 500;

/** Alerts that began or ended, newest first. */
export function PastAlerts({ live }: { live: readonly Alert[] }): ReactElement {
  const client = useClient();
  const [limit, setLimit] = useState(FIRST);
  const { data, reload } = useQuery(
    useCallback((signal) => client.request("GET /api/alerts/history", { query: { limit }, signal }), [client, limit]),
  );
  const now = useNow();
  // A new or resolved alert is in the history too.
  useEffect(() => reload(), [live, reload]);
  const entries = data ?? [];
  return (
    <section className="panel" aria-labelledby="past-alerts">
      <div className="panel-head">
        <h2 id="past-alerts">History</h2>
      </div>
      {entries.length === 0 ? (
        <Empty icon={History} title="No alert yet" compact />
      ) : (
        <ol className="lines">
          {entries.map((entry) => (
            <Entry key={`${entry.id} ${entry.startedAt} ${entry.timestamp} ${entry.state}`} entry={entry} now={now} />
          ))}
        </ol>
      )}
      {entries.length === limit && limit < MOST && (
        <div className="panel-foot">
          <button type="button" className="quiet" onClick={() => setLimit(limit === FIRST ? 100 : MOST)}>
            Show more
          </button>
        </div>
      )}
    </section>
  );
}

function Entry({ entry, now }: { entry: AlertLogEntry; now: number }): ReactElement {
  const { startedAt, endedAt } = entry;
  return (
    <li className="line past" data-state={entry.state}>
      <span className={`dot ${entry.type}`} aria-hidden />
      <time dateTime={new Date(startedAt).toISOString()}>{moment(startedAt, now)}</time>
      <span className="grow">
        <span className="hidden">{entry.type}: </span>
        {entry.message}
      </span>
      <span className="note">
        {endedAt === undefined ? `firing for ${duration(now - startedAt)}` : `for ${duration(endedAt - startedAt)}`}
      </span>
    </li>
  );
}
