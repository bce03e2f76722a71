import type { LogEntry } from "@tidings/client";
import { describe, expect, it } from "vitest";
import { Lines, MOST_LINES, passing } from "../src/logs/lines.js";

function entry(event: string, more: Partial<LogEntry> = {}): LogEntry {
  return { timestamp: 1, level: "info", source: "gateway-1", event, ...more };
}

const ALL = { level: "debug", text: "", source: "" } as const;

describe("kept lines", () => {
  it("are so many and no more", () => {
    const lines = new Lines();
    lines.add(Array.from({ length: MOST_LINES + 10 }, (_, n) => entry(String(n))));
    expect(lines.all).toHaveLength(MOST_LINES);
    expect(lines.all.at(0)?.entry.event).toBe("10");
    expect(lines.count).toBe(MOST_LINES + 10);
  });

  it("begin with those that are kept elsewhere, each once, in order of time", () => {
    const lines = new Lines();
    lines.add([entry("live", { timestamp: 30 })]);
    const kept = [entry("second", { timestamp: 20 }), entry("live", { timestamp: 30 }), entry("first", { timestamp: 10 })];
    expect(lines.merge(kept)).toBe(true);
    expect(lines.all.map((line) => line.entry.event)).toEqual(["first", "second", "live"]);
    expect(lines.merge(kept)).toBe(false);
    lines.merge([entry("between", { timestamp: 25 })]); // written late, or while there was no connection
    expect(lines.all.map((line) => line.entry.event)).toEqual(["first", "second", "between", "live"]);
    expect([new Set(lines.all.map(({ key }) => key)).size, lines.count]).toEqual([4, 4]);
  });

  it("are not restored after they were cleared", () => {
    const lines = new Lines();
    lines.add([entry("old", { timestamp: 10 })]);
    lines.clear();
    lines.merge([entry("old", { timestamp: 10 }), entry("new", { timestamp: 20 })]);
    expect(lines.all.map((line) => line.entry.event)).toEqual(["new"]);
  });

  it("are replaced, so that a paused view keeps its own", () => {
    const lines = new Lines();
    lines.add([entry("one")]);
    const held = lines.all;
    lines.add([entry("two")]);
    expect(held).toHaveLength(1);
  });
});

describe("filters", () => {
  const lines = new Lines();
  lines.add([
    entry("started", { level: "debug" }),
    entry("slow client closed", { level: "warning", fields: { room: "Lobby", queued: 12 } }),
    entry("refused", { level: "error", source: "shop" }),
    entry("strange", { level: "trace" }),
  ]);
  const events = (filter: Partial<Parameters<typeof passing>[1]>) =>
    passing(lines.all, { ...ALL, ...filter }).map((line) => line.entry.event);

  it("leave out what is less severe, and nothing that has an unknown level", () => {
    expect(events({ level: "warning" })).toEqual(["slow client closed", "refused", "strange"]);
  });

  it("look for all words, in event, source and fields", () => {
    expect(events({ text: "CLIENT lobby" })).toEqual(["slow client closed"]);
    expect(events({ text: "queued=12" })).toEqual(["slow client closed"]);
    expect(events({ text: "shop" })).toEqual(["refused"]);
  });

  it("leave out words after a minus", () => {
    expect(events({ text: "-strange -refused -" })).toEqual(["started", "slow client closed"]);
  });

  it("keep to one source", () => {
    expect(events({ source: "shop" })).toEqual(["refused"]);
  });

  it("without any are no work", () => {
    expect(passing(lines.all, ALL)).toBe(lines.all);
  });
});
