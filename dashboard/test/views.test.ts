import type { Alert, GatewayStats, User } from "@tidings/client";
import { describe, expect, it } from "vitest";
import { linkTo, parseRoute } from "../src/app/routes.js";
import { enriched, matcherText, scopesOf, standing } from "../src/alerts/silencing.js";
import { extended, FORGOTTEN_MS, KEPT, line, samplesOf } from "../src/gateways/trail.js";
import { found, hueOf, HUES, initials, memberships, MOST_ROOMS } from "../src/presence/people.js";
import { next, NOTHING_YET, type Happening } from "../src/rooms/resume.js";

describe("routes", () => {
  it("name a view, and what it is about", () => {
    expect(parseRoute("#/logs")).toEqual({ view: "logs", subject: undefined });
    expect(parseRoute("#/rooms/lobby")).toEqual({ view: "rooms", subject: "lobby" });
  });

  it("bear any name", () => {
    for (const name of ["a/b", "50 %", "ünï", "#?&"]) expect(parseRoute(linkTo("rooms", name)).subject).toBe(name);
  });

  it("lead to the overview when they lead nowhere", () => {
    for (const hash of ["", "#", "#/nothing", "#/nothing/x"]) expect(parseRoute(hash).view).toBe("overview");
    expect(parseRoute("#/rooms/%zz").subject).toBeUndefined();
  });
});

const alert = (id: string, more: Partial<Alert> = {}): Alert => {
  return { id, type: "warning", metric: "cpu", value: 1, threshold: 1, message: id, timestamp: 10, ...more };
};

describe("alerts", () => {
  it("are sorted worst and newest first, with the fields of the API", () => {
    const live = [alert("a"), alert("b", { timestamp: 20 }), alert("c", { type: "critical" })];
    const asked = [alert("a", { acknowledged: true }), alert("gone"), alert("b", { timestamp: 5, acknowledged: true })];
    const shown = enriched(live, asked);
    expect(shown.map(({ id }) => id)).toEqual(["c", "b", "a"]);
    expect(shown.map(({ acknowledged }) => acknowledged)).toEqual([undefined, undefined, true]);
  });

  it("can be silenced alone, by metric and by source", () => {
    expect(scopesOf(alert("cpu-alert"))).toHaveLength(2);
    expect(scopesOf(alert("cpu-h1-alert", { source: "h1" })).at(-1)?.matchers).toEqual([{ name: "source", value: "h1" }]);
    expect(matcherText({ name: "metric", value: "cpu" })).toBe("metric = cpu");
  });

  it("are silenced from a time to a time", () => {
    expect([5, 10, 19, 20].map((now) => standing({ startsAt: 10, endsAt: 20 }, now))).toEqual(["waiting", "on", "on", "over"]);
  });
});

describe("people", () => {
  const user = (userId: string, username: string, more: Partial<User> = {}): User => {
    return { userId, username, status: "online", lastSeen: 1, ...more };
  };
  const users = [user("u-1", "guest 10"), user("u-2", "Ada Lovelace", { lastSeen: 9 }), user("u-3", "guest 2", { status: "busy" })];
  const rooms = new Map([["u-2", ["lobby"]]]);
  const names = (search: string, order: "name" | "seen" = "name") => found(users, search, order, rooms).map((each) => each.username);

  it("are in the order of their names, or of when they were seen", () => {
    expect(names("")).toEqual(["Ada Lovelace", "guest 2", "guest 10"]);
    expect(names("", "seen")[0]).toBe("Ada Lovelace");
  });

  it("are found by name, id, status and room", () => {
    expect([names("love"), names("u-1"), names("guest busy"), names("LOBBY"), names("nobody")]).toEqual([
      ["Ada Lovelace"],
      ["guest 10"],
      ["guest 2"],
      ["Ada Lovelace"],
      [],
    ]);
  });

  it("have initials and a hue", () => {
    expect([initials("Ada Lovelace"), initials("bob"), initials("🦊 fox"), initials(" ")]).toEqual(["AL", "B", "🦊F", "?"]);
    expect(hueOf("u-1")).toBe(hueOf("u-1"));
    for (const each of users) expect(hueOf(each.userId)).toBeLessThan(HUES);
  });

  it("are in rooms, as far as rooms are asked about", async () => {
    const all = Array.from({ length: MOST_ROOMS + 1 }, (_, n) => ({ room: `r${n}`, users: 1, connections: 1 }));
    const { rooms, partial } = await memberships(all, (room) => Promise.resolve(room === "r20" ? users : users.slice(0, 1)));
    expect(rooms.get("u-1")).toHaveLength(MOST_ROOMS);
    expect([rooms.has("u-2"), partial]).toEqual([false, true]);
  });
});

describe("a room whose connection goes", () => {
  const after = (...happenings: Happening[]) => happenings.reduce(next, NOTHING_YET);

  it("reports recovered messages", () => {
    const { report, marked, away } = after(
      { type: "message", seq: 3 },
      { type: "down", now: 1000 },
      { type: "down", now: 1500 },
      { type: "message", seq: 4 },
      { type: "message", seq: 5 },
      { type: "joined", now: 6000, recovered: true },
      { type: "message", seq: 6 },
    );
    expect(report).toEqual({ awayMs: 5000, recovered: 2, first: 4, last: 5, verdict: "whole" });
    expect([...marked]).toEqual([4, 5]);
    expect(away).toBeUndefined();
  });

  it("reports a failed recovery", () => {
    expect(after({ type: "down", now: 0 }, { type: "joined", now: 1, recovered: false }).report?.verdict).toBe("gap");
    const unkept = after({ type: "down", now: 0 }, { type: "message", seq: undefined }, { type: "joined", now: 1, recovered: false });
    expect(unkept.report?.verdict).toBe("unkept");
  });

  it("reports nothing at the first join", () => {
    expect(after({ type: "joined", now: 1, recovered: undefined })).toBe(NOTHING_YET);
  });
});

describe("trails of gateways", () => {
  const stats = (gateway: string, connections: number) => ({ gateway, connections }) as GatewayStats;

  it("grow, and are forgotten", () => {
    let trails = extended(new Map(), [stats("g2", 1), stats("g1", 1)], 0);
    for (let n = 0; n < KEPT + 5; n++) trails = extended(trails, [stats("g1", n)], n);
    expect([...trails.keys()]).toEqual(["g1", "g2"]);
    expect(trails.get("g1")?.past).toHaveLength(KEPT);
    trails = extended(trails, [stats("g1", 7)], FORGOTTEN_MS);
    expect([...trails.keys()]).toEqual(["g1"]);
  });

  it("begin with what is known of before", () => {
    const points = (...values: number[]) => values.map((value, index) => ({ timestamp: 1000 * (index + 1), value }));
    const rest = { messagesOut: points(1, 1, 1, 1), bytesOut: points(1, 1, 1, 1), cpu: points(1, 1, 1, 1), memory: points(1, 1, 1, 1) };
    const before = samplesOf({ connections: points(1, 2, 3, 4), errors: points(0, 0, 0), ...rest });
    expect(before.map(({ connections }) => connections)).toEqual([2]); // each two seconds, and only whole ones
    const trails = extended(new Map(), [stats("g1", 9)], 0, new Map([["g1", before]]));
    expect(trails.get("g1")?.past.map(({ connections }) => connections)).toEqual([2, 9]);
  });

  it("are lines that end at the right", () => {
    expect(line([0, 5, 10], 5)).toBe("96.6,23.0 98.3,12.5 100.0,2.0");
    expect(line([0], 5)).toBe("100.0,23.0");
  });
});
