// The users to show, their order and their rooms. Pure.

import type { RoomSummary, User } from "@tidings/client";

export type Order = "name" | "seen";

/** Returns the users whose name, id, status or rooms contain all words of the search, sorted. */
export function found(
  users: Iterable<User>,
  search: string,
  order: Order,
  rooms: ReadonlyMap<string, readonly string[]>,
): User[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (user: User): boolean => {
    if (words.length === 0) return true;
    const text = [user.username, user.userId, user.status, ...(rooms.get(user.userId) ?? [])].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const chosen = [...users].filter(fits);
  return order === "name"
    ? chosen.sort((one, other) => COLLATOR.compare(one.username, other.username) || compare(one.userId, other.userId))
    : chosen.sort((one, other) => other.lastSeen - one.lastSeen || compare(one.userId, other.userId));
}

// Far faster than `localeCompare` on a thousand names.
const COLLATOR = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** The rooms of each user. The server lists members by room, so the number of requested rooms is limited. */
export const MOST_ROOMS = 20;

export interface Memberships {
  rooms: ReadonlyMap<string, readonly string[]>;
  /** Whether some rooms were not requested. */
  partial: boolean;
}

export async function memberships(
  rooms: readonly RoomSummary[],
  members: (room: string) => Promise<readonly User[]>,
): Promise<Memberships> {
  const found = new Map<string, string[]>();
  for (const { room } of rooms.slice(0, MOST_ROOMS)) {
    for (const { userId } of await members(room)) found.set(userId, [...(found.get(userId) ?? []), room]);
  }
  return { rooms: found, partial: rooms.length > MOST_ROOMS };
}

/** Initials in place of a picture: of the first and last word. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined].map((word) => {
    return word ? String.fromCodePoint(word.codePointAt(0) ?? 0) : "";
  });
  return letters.join("").toUpperCase() || "?";
}

/** A hue from a fixed set, always the same for a user. */
export function hueOf(userId: string): number {
  let sum = 0;
  for (const character of userId) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % HUES;
  return sum;
}

export const HUES = 8;
