// What became of a room while the connection was away. Pure: times are passed in.

export interface Away {
  /** When the connection went, in ms. */
  since: number;
  /** Messages that came after the connection was back and before the room said that it is whole. */
  recovered: number[];
  /** Some messages had no place in the room's order: it is ephemeral. */
  unordered: boolean;
}

export interface Report {
  awayMs: number;
  recovered: number;
  first: number | undefined;
  last: number | undefined;
  /** `whole`: nothing was missed. `gap`: the server could not say so. `unkept`: the room keeps nothing. */
  verdict: "whole" | "gap" | "unkept";
}

export interface Watch {
  away: Away | undefined;
  report: Report | undefined;
  /** Sequence numbers of the messages that were recovered, in all breaks: they are marked. */
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
