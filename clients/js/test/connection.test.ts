import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { backoff } from "../src/connection/backoff.js";
import { mayReconnect } from "../src/connection/codes.js";
import { Fallback } from "../src/connection/fallback.js";
import { advance, TABLE, type Input, type State } from "../src/connection/machine.js";
import { Watchdog } from "../src/connection/watchdog.js";
import { Endpoint } from "../src/endpoint.js";
import { RoomLog } from "../src/roomlog.js";

const STATES = Object.keys(TABLE) as State[];

describe("the state machine", () => {
  it("can be closed from every state, and connected again", () => {
    for (const state of STATES.filter((each) => each !== "closed")) expect(advance(state, "close")?.next).toBe("closed");
    for (const state of ["closed", "failed", "suspended"] as const) {
      expect(advance(state, "connect")?.next).toBe("connecting");
    }
  });

  it("holds a transport in two states only, and lets go of it on every way out", () => {
    const holds = (state: State) => state === "connecting" || state === "connected";
    for (const state of STATES) {
      for (const step of Object.values(TABLE[state])) {
        const drops = step.actions.includes("drop") || step.actions.includes("leave");
        const opens = step.actions.includes("open");
        expect(opens || (holds(state) && !drops)).toBe(holds(step.next));
      }
    }
  });

  it("has a timer while suspended, and only then", () => {
    for (const state of STATES) {
      for (const [input, step] of Object.entries(TABLE[state])) {
        if (step.next === "suspended") expect(step.actions).toContain("wait");
        if (state === "suspended" && (input as Input) !== "due") expect(step.actions).toContain("cancel");
      }
    }
  });

  it("is the table in the docs", () => {
    const docs = readFileSync(new URL("../../../docs/clients-js.md", import.meta.url), "utf8");
    for (const state of STATES) {
      for (const [input, step] of Object.entries(TABLE[state])) {
        expect(docs).toContain(`| ${state} | ${input} | ${step.next} | ${step.actions.join(", ")} |`);
      }
    }
  });
});

it("obeys the code table", () => {
  expect([1000, 1002, 1003, 1007, 1009, 4500, 4501, 4999].map(mayReconnect)).not.toContain(true);
  expect([1001, 1005, 1006, 1011, 1012, 1013, 1014, 4000, 4001, 4499].map(mayReconnect)).not.toContain(false);
});

it("waits any time up to a doubling limit, after what the server asked for", () => {
  const options = { firstMs: 500, longestMs: 30_000 };
  expect(backoff(0, 0, options, () => 0)).toBe(0);
  expect(backoff(0, 0, options, () => 0.999)).toBe(500);
  expect(backoff(3, 0, options, () => 0.5)).toBe(2000);
  expect(backoff(1000, 700, options, () => 0.5)).toBe(15_700);
});

it("tries a stream after two failures, then in turns", () => {
  const fallback = new Fallback(["websocket", "sse"]);
  const attempts = Array.from({ length: 6 }, () => {
    const kind = fallback.choose();
    fallback.failed();
    return kind;
  });
  expect(attempts).toEqual(["websocket", "websocket", "sse", "websocket", "sse", "websocket"]);
  fallback.worked("sse");
  expect(fallback.choose()).toBe("sse"); // what worked last
  fallback.failed();
  expect(fallback.choose()).toBe("websocket");
});

it("begins with what worked when the page was last open", () => {
  expect(new Fallback(["websocket", "sse"], "sse").choose()).toBe("sse");
  expect(new Fallback(["websocket"], "sse").choose()).toBe("websocket");
});

it("tries the better transport again after 2, 4, 8 … 60 minutes", () => {
  const fallback = new Fallback(["websocket", "sse"]);
  fallback.worked("sse");
  const pauses = Array.from({ length: 7 }, () => {
    const { pauseMs } = fallback;
    fallback.probed();
    fallback.worked("sse"); // a new stream changes nothing about it
    return pauseMs / 60_000;
  });
  expect(pauses).toEqual([2, 4, 8, 16, 32, 60, 60]);
  fallback.worked("websocket");
  expect(fallback.pauseMs).toBe(120_000);
});

it("trusts WebSockets longer where they worked", () => {
  const fallback = new Fallback(["websocket", "sse"]);
  fallback.worked("websocket");
  for (let failures = 0; failures < 4; failures++) {
    expect(fallback.choose()).toBe("websocket");
    fallback.failed();
  }
  expect(fallback.choose()).toBe("sse");
});

describe("the watchdog", () => {
  it("asks after a silent interval, and waits for the answer", () => {
    const dog = new Watchdog(0, 25_000, 5000, true);
    const verdicts = [5, 10, 15, 20, 25, 29].map((second) => dog.turn(second * 1000));
    expect(verdicts).toEqual(["fine", "fine", "fine", "fine", "probe", "fine"]);
    expect(dog.turn(30_000)).toBe("dead");
  });

  it("starts again with every sign of life", () => {
    const dog = new Watchdog(0, 25_000, 5000, true);
    dog.turn(25_000);
    dog.heard(26_000);
    expect(dog.turn(31_000)).toBe("fine");
  });

  it("believes silence only once its own turns are in time", () => {
    const dog = new Watchdog(0, 25_000, 5000, true);
    expect(dog.turn(60_000)).toBe("probe");
    expect(dog.turn(120_000)).toBe("probe"); // late again: the answer may wait in a queue behind us
    expect(dog.turn(180_000)).toBe("dead");
  });

  it("gives a stream three intervals", () => {
    const dog = new Watchdog(0, 5000, 5000, false);
    expect([5, 10, 15].map((second) => dog.turn(second * 1000))).toEqual(["fine", "fine", "fine"]);
    expect(dog.turn(20_000)).toBe("dead");
  });
});

it.each([
  ["http://host:8080", "http://host:8080/api", "ws://host:8080/ws"],
  ["https://host/", "https://host/api", "wss://host/ws"],
  ["wss://host/ws", "https://host/api", "wss://host/ws"],
  ["ws://host/base/ws?x=1#y", "http://host/base/api", "ws://host/base/ws"],
  ["https://host/tidings", "https://host/tidings/api", "wss://host/tidings/ws"],
])("%s names a server", (url, http, ws) => {
  const endpoint = new Endpoint(url);
  expect(endpoint.http("/api", { empty: "", absent: undefined })).toBe(http);
  expect(endpoint.ws({})).toBe(ws);
  expect(endpoint.ws({ username: "Ä b" })).toBe(`${ws}?username=%C3%84+b`);
});

it("refuses what names no server", () => {
  expect(() => new Endpoint("ftp://host")).toThrow(TypeError);
  expect(() => new Endpoint("host")).toThrow(TypeError);
});

describe("the log of a room", () => {
  const joined = (seq: number, more = {}) => ({ type: "joined_room", room: "r", epoch: "e", seq, ...more }) as const;
  const message = (seq: number) =>
    ({ type: "room_message", userId: "u", username: "u", room: "r", content: 0, timestamp: 0, seq }) as const;
  const ack = (seq: number, epoch = "e") => ({ type: "ack", epoch, seq }) as const;

  it("shows each message once", () => {
    const log = new RoomLog();
    expect(log.joined(joined(5))).toBe(false);
    expect([5, 6, 6, 9].map((seq) => log.accept(message(seq)))).toEqual([false, true, false, true]);
    expect(log.position).toEqual({ epoch: "e", seq: 9 });
  });

  it("does not move past others' messages that may still come when an own one is stored", () => {
    const log = new RoomLog();
    log.joined(joined(5));
    log.stored(ack(7), 1000);
    expect(log.accept(message(6))).toBe(true);
    expect(log.since(5000)).toEqual({ epoch: "e", seq: 6 });
    expect(log.since(11_000)).toEqual({ epoch: "e", seq: 7 });
  });

  it("does not show own messages among those missed", () => {
    const log = new RoomLog();
    log.joined(joined(5));
    log.stored(ack(7), 1000);
    log.stored(ack(7, "another epoch"), 1000);
    expect([6, 7, 8].map((seq) => log.accept(message(seq)))).toEqual([true, false, true]);
  });

  it("distinguishes a gap from a recovery", () => {
    const log = new RoomLog();
    log.joined(joined(5));
    expect(log.joined(joined(9, { recovered: true }))).toBe(false);
    expect(log.position).toEqual({ epoch: "e", seq: 9 });
    expect(log.joined(joined(20, { recovered: false }))).toBe(true);
    expect(log.joined({ type: "joined_room", room: "r", epoch: "f", seq: 1, recovered: true })).toBe(true);
    expect(log.joined(joined(1))).toBe(true);
    expect(log.joined({ type: "joined_room", room: "r" })).toBe(false);
    expect(log.position).toBeUndefined();
  });
});
