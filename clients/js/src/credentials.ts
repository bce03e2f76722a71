import { TidingsError } from "./errors.js";
import { Shared } from "./shared.js";

export interface CredentialRequest {
  /** The last one was refused or ran out: do not answer from a cache. */
  refresh: boolean;
  /** Aborts when the answer is not wanted any more. */
  signal: AbortSignal;
}

export type CredentialCallback = (request: CredentialRequest) => string | Promise<string>;

/** Asks the application for tokens, and keeps one until it ends. */
export class Credentials {
  #token: string | undefined;
  /** The one request for a token there is: with rotating refresh tokens, two at once log a user out. */
  #asking: Shared<string> | undefined;
  #refresh = false;

  constructor(
    private readonly getToken: CredentialCallback | undefined,
    private readonly getTicket: CredentialCallback | undefined,
  ) {}

  /** Whether tickets come from the application, which then shows us no token. */
  get givesTickets(): boolean {
    return this.getTicket !== undefined;
  }

  /** Whether there is anything to show. */
  get any(): boolean {
    return this.givesTickets || this.getToken !== undefined;
  }

  /** Returns the token, or undefined where there is none to show. */
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
        if (!done()) return; // nobody waits for it any more
        this.#token = token;
        this.#refresh = false;
      },
      () => done(),
    );
    return shared;
  }

  /** Returns a ticket of the application: each is good for one connection. */
  async ticket(signal: AbortSignal): Promise<string | undefined> {
    const refresh = this.#refresh;
    this.#refresh = false;
    return this.getTicket?.({ refresh, signal });
  }

  /** Forgets the token that was used: it ran out. One that has come since is kept. */
  expire(used = this.#token): void {
    if (used !== this.#token || this.#asking) return;
    this.#token = undefined;
    this.#refresh = true;
  }

  /** Runs what shows a token or a ticket, and once more with fresh ones if they are refused. */
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
