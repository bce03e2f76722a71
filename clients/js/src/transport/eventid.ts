/** Event ids of `/events`: base64url of a JSON array of [topic, epoch, seq]. The inbox is the topic "". */
import type { Position } from "../generated/wire.js";

export const INBOX_TOPIC = "";

export function encodeEventId(positions: Iterable<[topic: string, position: Position]>): string {
  const triples = [...positions].map(([topic, { epoch, seq }]) => [topic, epoch, seq]);
  const bytes = new TextEncoder().encode(JSON.stringify(triples));
  return btoa(String.fromCharCode(...bytes)).replace(/[+/=]/g, (sign) => ({ "+": "-", "/": "_" })[sign] ?? "");
}

/** Returns the position of one topic in an id, if it is there. */
export function positionIn(id: string, wanted: string): Position | undefined {
  try {
    const binary = atob(id.replace(/[-_]/g, (sign) => (sign === "-" ? "+" : "/")));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    const triples = JSON.parse(new TextDecoder().decode(bytes)) as [string, string, number][];
    const found = triples.find(([topic]) => topic === wanted);
    return found && { epoch: found[1], seq: found[2] };
  } catch {
    return undefined; // an id of another form resumes nothing, and breaks nothing
  }
}
