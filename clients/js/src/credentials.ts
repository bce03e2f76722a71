import { TidingsError } from "./errors.js";

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
    if (!this.getToken) return undefined;
    if (this.#token === undefined) {
      this.#token = await this.getToken({ refresh: this.#refresh, signal });
      this.#refresh = false;
    }
    return this.#token;
  }

  /** Returns a ticket of the application: each is good for one connection. */
  async ticket(signal: AbortSignal): Promise<string | undefined> {
    const refresh = this.#refresh;
    this.#refresh = false;
    return this.getTicket?.({ refresh, signal });
  }

  /** Forgets the token: it ran out. */
  expire(): void {
    this.#token = undefined;
    this.#refresh = true;
  }

  /** Runs what shows credentials, and once more with fresh ones if they are refused. */
  async show<T>(attempt: () => Promise<T>): Promise<T> {
    try {
      return await attempt();
    } catch (fault) {
      if (!this.any || !(fault instanceof TidingsError) || fault.code !== "unauthorized") throw fault;
      this.expire();
      return attempt();
    }
  }
}
