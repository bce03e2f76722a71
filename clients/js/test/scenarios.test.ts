// What a user sees when something goes wrong, against a server without a network. The Python suite carries out the
// same rows; test/real/ has those with real gateways.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Faked, rows } from "./support/scenario.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the table", () => {
  it.each(rows("faked").map((row) => [row.name, row] as const))("%s", async (_, row) => {
    await new Faked(row.options).run(row.steps);
  });

  it("names each row once", () => {
    const names = rows("faked").map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });

  it("fails where a step or an expectation is not known", async () => {
    await expect(new Faked().run([["dance"]])).rejects.toThrow('does not know "dance"');
    await expect(new Faked().run([["expect", { mood: "fine" }]])).rejects.toThrow('does not know what "mood" is');
  });
});
