/** Presence lists, complete, in parts and as counts: users who enter, leave and stay. */
import { beforeEach, describe, expect, it } from "vitest";
import type { PresenceList, User } from "../src/generated/wire.js";
import { Presence } from "../src/presence.js";

const user = (userId: string): User => ({ userId, username: userId, status: "online", lastSeen: 1 });
const list = (names: string[], more: Partial<PresenceList> = {}): PresenceList => ({
  type: "presence_list",
  users: names.map(user),
  ...more,
});

describe("presence", () => {
  let presence: Presence;
  let heard: string[];

  beforeEach(() => {
    presence = new Presence(undefined as never, undefined);
    heard = [];
    presence.on("enter", (one) => heard.push(`+${one.userId}`));
    presence.on("leave", (one) => heard.push(`-${one.userId}`));
  });

  it("reports enters and leaves after a reconnect", () => {
    presence.take(list(["ann", "bob"]));
    presence.onDown();
    presence.take(list(["bob", "eve"]));
    expect(heard).toEqual(["+ann", "+bob", "-ann", "+eve"]);
    expect([...presence.users.get().keys()]).toEqual(["bob", "eve"]);
    expect(presence.synced.get()).toBe(true);
  });

  it("reports no leave between the parts of a list", () => {
    presence.take(list(["ann", "bob", "eve", "joe"]));
    presence.onDown();
    heard.length = 0;
    presence.take(list(["ann"], { more: true, count: 3 }));
    expect(presence.synced.get()).toBe(false);
    presence.take({ type: "user_online", user: user("new") });
    presence.take({ type: "user_offline", userId: "bob" });
    presence.take(list(["eve"], { part: 2, count: 3 }));
    expect(heard).toEqual(["+new", "-bob", "-joe"]);
    expect(new Set(presence.users.get().keys())).toEqual(new Set(["ann", "eve", "new"]));
    expect(presence.synced.get()).toBe(true);
    expect(presence.count.get()).toBe(3);
  });

  it("reports no leave when the list becomes too long to be sent", () => {
    presence.take(list(["ann", "bob"]));
    heard.length = 0;
    presence.take(list([], { count: 1204 }));
    expect(heard).toEqual([]);
    expect(presence.users.get().size).toBe(0);
    expect(presence.count.get()).toBe(1204);
  });

  it("starts an interrupted list again", () => {
    presence.take(list(["ann"], { more: true }));
    presence.onDown();
    presence.take(list(["bob"]));
    expect(heard).toEqual(["+ann", "-ann", "+bob"]);
  });
});
