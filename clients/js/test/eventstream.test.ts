import { describe, expect, it } from "vitest";
import { EventStreamParser } from "../src/transport/eventstream.js";

const STREAM =
  '\uFEFFevent: connected\ndata: {"status":"connected"}\n\n: keep-alive\r\n\r\nid: 7\r\ndata: one\r\ndata:two\r\rdata\nretry: 430\nretry: soon\n\nevent: nothing\n\n';
const EVENTS = [
  { type: "connected", data: '{"status":"connected"}', id: undefined },
  { type: "message", data: "one\ntwo", id: "7" },
  { type: "message", data: "", id: undefined },
];

describe("an event stream", () => {
  it("is read whole", () => {
    const parser = new EventStreamParser();
    expect(parser.push(STREAM)).toEqual(EVENTS);
    expect(parser.retryMs).toBe(430);
  });

  it("is read character by character", () => {
    const parser = new EventStreamParser();
    expect(Array.from(STREAM).flatMap((character) => parser.push(character))).toEqual(EVENTS);
  });

  it("is read in any two pieces", () => {
    for (let cut = 0; cut <= STREAM.length; cut++) {
      const parser = new EventStreamParser();
      expect([...parser.push(STREAM.slice(0, cut)), ...parser.push(STREAM.slice(cut))]).toEqual(EVENTS);
    }
  });

  it("does not show an event that is not complete", () => {
    expect(new EventStreamParser().push("data: half\n")).toEqual([]);
  });
});
