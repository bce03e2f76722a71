// The golden messages of the whole project: the Python suite reads the same files.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { decode, encode, msgpack } from "../src/msgpack.js";
import { json } from "../src/codec.js";
import { encodeEventId, positionIn } from "../src/transport/eventid.js";

interface Case {
  name: string;
  message: unknown;
  value: unknown;
  msgpack: string;
  id: string;
  positions: [string, string, number][];
}

function cases(file: string): Case[] {
  return JSON.parse(readFileSync(new URL(`../../../tests/fixtures/wire/${file}`, import.meta.url), "utf8")) as Case[];
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const bytesOf = (text: string) => Uint8Array.from(Buffer.from(text, "hex")).buffer;

describe("MessagePack", () => {
  it.each(cases("values.json"))("$name", (each) => {
    expect(hex(encode(each.value))).toBe(each.msgpack);
    expect(decode(bytesOf(each.msgpack))).toEqual(each.value);
  });

  it.each(cases("client.json"))("encodes $name", (each) => {
    expect(hex(msgpack.encode(each.message) as Uint8Array)).toBe(each.msgpack);
  });

  it.each(cases("server.json"))("decodes $name", (each) => {
    expect(msgpack.decode(bytesOf(each.msgpack))).toEqual(each.message);
    expect(json.decode(JSON.stringify(each.message))).toEqual(each.message);
  });

  it("leaves out what JSON leaves out", () => {
    expect(decode(encode({ a: undefined, b: NaN, c: new Date(0), d: [undefined] }).slice().buffer)).toEqual({
      b: null,
      c: "1970-01-01T00:00:00.000Z",
      d: [null],
    });
  });

  it("keeps a field that is called like the prototype a field", () => {
    const decoded = decode(encode(JSON.parse('{"__proto__": {"x": 1}}')).slice().buffer) as object;
    expect(Object.getPrototypeOf(decoded)).toBe(Object.prototype);
    expect(JSON.stringify(decoded)).toBe('{"__proto__":{"x":1}}');
  });

  it.each(["", "a5", "93", "c1", "81c001", "0000", "d9", "cf00"])("refuses %s", (broken) => {
    expect(() => decode(bytesOf(broken))).toThrow();
  });

  it("grows for large messages", () => {
    const large = { text: "x".repeat(100_000), list: Array.from({ length: 70_000 }, (_, index) => index) };
    expect(decode(encode(large).slice().buffer)).toEqual(large);
  });
});

describe("event ids", () => {
  it.each(cases("event_ids.json"))("$name", (each) => {
    expect(encodeEventId(each.positions.map(([topic, epoch, seq]) => [topic, { epoch, seq }]))).toBe(each.id);
    for (const [topic, epoch, seq] of each.positions) expect(positionIn(each.id, topic)).toEqual({ epoch, seq });
  });

  it("resumes nothing from an id of another form", () => {
    expect(positionIn("%%%", "lobby")).toBeUndefined();
    expect(positionIn("W10", "lobby")).toBeUndefined();
  });
});
