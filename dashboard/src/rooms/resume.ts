// Recovery of a room after a reconnect. Pure: times are passed in.

export interface Away {
  /** When the connection was lost, in ms. */
  since: number;
  /** Messages between the reconnect and the room's answer to the join. */
  recovered: number[];
  /** A message had no sequence: the room is ephemeral. */
  unordered: boolean;
}

export interface Report {
  awayMs: number;
  recovered: number;
  first: number | undefined;
  last: number | undefined;
  /** `whole`: no message was missed. `gap`: messages may be missing. `unkept`: the room is ephemeral. */
  verdict: "whole" | "gap" | "unkept";
}

export interface Watch {
  away: Away | undefined;
  report: Report | undefined;
  /** Sequences of all recovered messages, which are marked. */
  marked: ReadonlySet<number>;
}

export const NOTHING_YET: Watch = { away: undefined, report: undefined, marked: new Set() };

export type Happening =
  | { type: "down"; now: number }
  | { type: "message"; seq: number | undefined }
  | { type: "joined"; now: number; recovered: boolean | undefined };

export function next(watch: Watch, happening: Happening): Watch {
  const { away } = watch;
  switch (happening.type) {
    case "down":
      return away ? watch : { ...watch, away: { since: happening.now, recovered: [], unordered: false }, report: undefined };
    case "message": {
      if (!away) return watch;
      const { seq } = happening;
      if (seq === undefined) return { ...watch, away: { ...away, unordered: true } };
      return { ...watch, away: { ...away, recovered: [...away.recovered, seq] } };
    }
    case "joined": {
      if (!away) return watch;
      const { recovered } = away;
      const verdict = happening.recovered ? "whole" : happening.recovered === undefined || away.unordered ? "unkept" : "gap";
      const report: Report = {
        awayMs: happening.now - away.since,
        recovered: recovered.length,
        first: recovered[0],
        last: recovered.at(-1),
        verdict,
      };
      return { away: undefined, report, marked: new Set([...watch.marked, ...recovered]) };
    }
  }
}
