/** Finds out which rooms and channels of a stream are refused, since the server only refuses the whole stream. Pure. */
import type { Interest } from "./transport.js";

const roomPiece = (name: string): string => `room ${name}`;
const channelPiece = (name: string): string => `channel ${name}`;
const piecesOf = ({ rooms, channels }: Interest): string[] => [...[...rooms.keys()].map(roomPiece), ...channels.map(channelPiece)];

export class Trial {
  readonly #admitted = new Set<string>();
  /** Refused rooms and channels, with the errors. */
  readonly #refused = new Map<string, unknown>();
  #oneByOne = false;

  /** Returns why a room was refused, if it was. */
  roomFault(name: string): unknown {
    return this.#refused.get(roomPiece(name));
  }

  channelFault(name: string): unknown {
    return this.#refused.get(channelPiece(name));
  }

  /** The application joins a room again: it may be admitted now. */
  pardon(room: string): void {
    this.#refused.delete(roomPiece(room));
  }

  /** Returns what to request now. */
  choose(wanted: Interest): Interest {
    const fresh = this.#fresh(wanted);
    const left = new Set(this.#oneByOne ? fresh.slice(1) : []);
    const chosen = (piece: string): boolean => !this.#refused.has(piece) && !left.has(piece);
    return {
      rooms: new Map([...wanted.rooms].filter(([name]) => chosen(roomPiece(name)))),
      channels: wanted.channels.filter((name) => chosen(channelPiece(name))),
      inbox: wanted.inbox,
    };
  }

  /** The stream opened. Returns whether there is more to request. */
  onAdmitted(asked: Interest, wanted: Interest): boolean {
    for (const piece of piecesOf(asked)) this.#admitted.add(piece);
    this.#oneByOne &&= this.#fresh(wanted).length > 0;
    return this.#oneByOne;
  }

  /** The stream was refused. Returns whether to request something else. */
  onRefused(asked: Interest, fault: unknown): boolean {
    const [one, other] = this.#fresh(asked);
    if (one === undefined) this.#admitted.clear(); // what was admitted is not any more
    else if (other === undefined) this.#refused.set(one, fault);
    this.#oneByOne = true;
    return piecesOf(asked).length > 0;
  }

  /** Neither admitted nor refused so far. */
  #fresh(interest: Interest): string[] {
    return piecesOf(interest).filter((piece) => !this.#admitted.has(piece) && !this.#refused.has(piece));
  }
}
