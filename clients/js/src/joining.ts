/** How a room is joined: the options of the application, and the token that the room may need. */
import { Credentials, type CredentialCallback } from "./credentials.js";
import type { TidingsError } from "./errors.js";
import type { ClientJoinRoom, Position } from "./generated/wire.js";

export interface JoinOptions {
  /** Number of stored messages to begin with. They come as `message` events before the live ones. */
  history?: number | undefined;
  /** What other members see of this one: any JSON of at most 1 KiB. */
  data?: unknown;
  /** Token for this room alone, or a function that returns one; called again when it has expired or is refused. */
  token?: string | CredentialCallback | undefined;
}

/** @internal What a join says besides the room's name. */
export type JoinRequest = Omit<ClientJoinRoom, "type" | "room" | "id">;

/** Errors after which a new token may help. */
const TOKEN_FAULTS = ["unauthorized", "forbidden"];

export class Joining {
  /** Gets the tokens, where they come from a function. */
  readonly #credentials: Credentials | undefined;
  #token: string | undefined;
  /** A new token was requested because of a refusal: the next refusal is final. */
  #refreshed = false;

  constructor(
    private readonly options: JoinOptions = {},
    before?: Joining,
  ) {
    const { token } = options;
    if (before && before.options.token === token) [this.#credentials, this.#token] = [before.#credentials, before.#token];
    else if (typeof token === "function") this.#credentials = new Credentials(token, undefined);
    else this.#token = token;
  }

  /** Returns this one, or another if the options change it. Throws TypeError for data that is no JSON. */
  with(given: JoinOptions): Joining {
    const known = Object.entries(given).filter(([, value]) => value !== undefined);
    const next = new Joining({ ...this.options, ...Object.fromEntries(known) }, this);
    return next.options.history === this.options.history && next.isForMember(this) ? this : next;
  }

  /** Whether a member through `other` is one through this, too. */
  isForMember({ options }: Joining): boolean {
    return this.options.token === options.token && JSON.stringify(this.options.data) === JSON.stringify(options.data);
  }

  /** Whether a token has to be requested first. */
  get lacksToken(): boolean {
    return this.#credentials !== undefined && this.#token === undefined;
  }

  /** Requests a token, if one is missing. */
  async getToken(signal: AbortSignal): Promise<void> {
    this.#token ??= await this.#credentials?.token(signal);
  }

  request(since: Position | undefined): JoinRequest {
    const { history, data } = this.options;
    return { since, history, memberData: data, token: this.#token };
  }

  /** The room is joined. */
  succeeded(): void {
    this.#refreshed = false;
  }

  /** The join was refused. Returns whether to try again with a new token. */
  mayRefresh({ code }: TidingsError): boolean {
    return !this.#refreshed && TOKEN_FAULTS.includes(code) && (this.#refreshed = this.expire());
  }

  /** The token has expired. Returns whether there will be a new one. */
  expire(): boolean {
    if (!this.#credentials) return false;
    this.#credentials.expire();
    this.#token = undefined;
    return true;
  }
}
