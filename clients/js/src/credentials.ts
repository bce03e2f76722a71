import { TidingsError } from "./errors.js";
import { Shared } from "./shared.js";

export interface CredentialRequest {
  /** The last credential was refused or expired: do not answer from a cache. */
  refresh: boolean;
  /** Aborts when the answer is not needed any more. */
  signal: AbortSignal;
}

export type CredentialCallback = (request: CredentialRequest) => string | Promise<string>;

/** Gets tokens and tickets from the application, and keeps a token until it expires. */
export class Credentials {
  #token: string | undefined;
  /** The only open request for a token: with rotating refresh tokens, two at once log a user out. */
  #asking: Shared<string> | undefined;
  #refresh = false;

  constructor(
    private readonly getToken: CredentialCallback | undefined,
    private readonly getTicket: CredentialCallback | undefined,
  ) {}

  /** Whether the application gives tickets, and keeps its token. */
  get givesTickets(): boolean {
    return this.getTicket !== undefined;
  }

  /** Whether there are credentials at all. */
  get any(): boolean {
    return this.givesTickets || this.getToken !== undefined;
  }

  /** Returns the token, or undefined where the application gives none. */
  async token(signal: AbortSignal): Promise<string | undefined> {
    return this.#token ?? (this.getToken && (this.#asking ??= this.#ask(this.getToken)).wait(signal));
  }

  #ask(getToken: CredentialCallback): Shared<string> {
    const gone = new AbortController();
    const asking = (async () => getToken({ refresh: this.#refresh, signal: gone.signal }))();
    const shared = new Shared(asking, () => {
      done();
      gone.abort();
    });
    const done = (): boolean => this.#asking === shared && !(this.#asking = undefined);
    asking.then(
      (token) => {
        if (!done()) return; // nothing waits for it any more
        this.#token = token;
        this.#refresh = false;
      },
      () => done(),
    );
    return shared;
  }

  /** Returns a ticket from the application, for one connection. */
  async ticket(signal: AbortSignal): Promise<string | undefined> {
    const refresh = this.#refresh;
    this.#refresh = false;
    return this.getTicket?.({ refresh, signal });
  }

  /** Drops the token `used`, which has expired. A newer token is kept. */
  expire(used = this.#token): void {
    if (used !== this.#token || this.#asking) return;
    this.#token = undefined;
    this.#refresh = true;
  }

  /** Calls `attempt` with a token or a ticket, and once more with a new one if it is refused. */
  async show<T>(signal: AbortSignal, attempt: (token?: string, ticket?: string) => Promise<T>): Promise<T> {
    const once = async (last: boolean): Promise<T> => {
      const token = await this.token(signal);
      const ticket = token === undefined ? await this.ticket(signal) : undefined;
      try {
        return await attempt(token, ticket);
      } catch (fault) {
        if (!(fault instanceof TidingsError) || fault.code !== "unauthorized") throw fault;
        this.expire(token);
        if (last || !this.any) throw fault;
        return once(true);
      }
    };
    return once(false);
  }
}
