import { describe, expect, it } from "vitest";
import { ago, bytes, contentText, count, duration, milliseconds, moment, percent, short } from "../src/format.js";

describe("numbers", () => {
  it.each([
    [0, "0"],
    [0.0004, "0"],
    [0.042, "0.042"],
    [0.5, "0.5"],
    [4, "4"],
    [4.25, "4.3"],
    [42.4, "42"],
    [4200, "4,200"],
    [1_234_567, "1.2M"],
  ])("%f is %s", (value, text) => expect(short(value)).toBe(text));

  it("have units", () => {
    expect([bytes(12), bytes(1530), bytes(2_500_000_000)]).toEqual(["12 B", "1.5 KB", "2.5 GB"]);
    expect([percent(3.14), percent(42), percent(100)]).toEqual(["3.1 %", "42.0 %", "100 %"]);
    expect([milliseconds(0.27), milliseconds(1200), milliseconds(12_000)]).toEqual(["0.3 ms", "1,200 ms", "12 s"]);
    expect([count(1, "user"), count(1000, "user")]).toEqual(["1 user", "1,000 users"]);
  });
});

describe("times", () => {
  it.each([
    [-5, "0 s"],
    [7000, "7 s"],
    [65_000, "1 min 5 s"],
    [600_000, "10 min"],
    [7_500_000, "2 h 5 min"],
    [90_000_000, "1 d 1 h"],
    [30 * 86_400_000, "30 d"],
  ])("%i ms are %s", (ms, text) => expect(duration(ms)).toBe(text));

  it("are relative to now", () => {
    expect(ago(1000, 2000)).toBe("now");
    expect(ago(1000, 8000)).toBe("7 s ago");
    expect(moment(new Date(2026, 0, 5, 9, 30).getTime(), new Date(2026, 0, 5, 12).getTime())).toBe("09:30:00");
    expect(moment(new Date(2026, 0, 4, 9, 30).getTime(), new Date(2026, 0, 5, 12).getTime())).toBe("4 Jan 09:30:00");
  });
});

it("shows any content as text", () => {
  expect([contentText("hi"), contentText({ text: "hi" }), contentText({ n: 1 }), contentText(null)]).toEqual([
    "hi",
    "hi",
    '{"n":1}',
    "null",
  ]);
});
