import type { Clock } from "./clock.js";
import { TidingsError } from "./errors.js";
import type { ClientMessage, ServerMessage } from "./generated/wire.js";

export interface ChannelSetup {
  clock: Clock;
  ask(message: ClientMessage): Promise<ServerMessage>;
  isUp(): boolean;
  onRefused(channel: string, fault: TidingsError): void;
}

/** Delay of an unsubscribe: a component that is unmounted and mounted again should cost nothing. */
const LINGER_MS = 100;
const RETRY_MS = 1000;

/** Channel subscriptions: counts the holders of each channel, and subscribes again on every connection. */
export class Channels {
  readonly #holders = new Map<string, number>();
  /** Subscribed, or requested, on this connection. */
  readonly #open = new Set<string>();
  #scheduled = false;

  constructor(private readonly setup: ChannelSetup) {}

  /** Channels with at least one holder. */
  get wanted(): string[] {
    return [...this.#holders.keys()];
  }

  hold(channel: string, signal?: AbortSignal): () => void {
    if (signal?.aborted) return () => undefined;
    this.#holders.set(channel, (this.#holders.get(channel) ?? 0) + 1);
    this.#schedule();
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      signal?.removeEventListener("abort", release);
      this.setup.clock.setTimeout(() => this.#release(channel), LINGER_MS);
    };
    signal?.addEventListener("abort", release);
    return release;
  }

  onUp(): void {
    this.#open.clear();
    this.#ask();
  }

  #release(channel: string): void {
    const left = (this.#holders.get(channel) ?? 1) - 1;
    if (left > 0) return void this.#holders.set(channel, left);
    this.#holders.delete(channel);
    if (this.#open.delete(channel) && this.setup.isUp()) {
      this.setup.ask({ type: "unsubscribe", channels: [channel] }).catch(() => undefined); // ends with the connection
    }
  }

  /** Subscribes once to all channels that were held in the same turn, so that metrics and alerts get one snapshot. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#ask();
    });
  }

  #ask(): void {
    if (!this.setup.isUp()) return;
    const names = this.wanted.filter((name) => !this.#open.has(name));
    if (names.length > 0) this.#subscribe(names);
  }

  #subscribe(channels: string[]): void {
    for (const channel of channels) this.#open.add(channel);
    this.setup.ask({ type: "subscribe", channels }).catch((fault: unknown) => {
      if (!(fault instanceof TidingsError) || fault.code === "connection_lost") return;
      for (const channel of channels) this.#open.delete(channel);
      if (fault.retryable) {
        this.setup.clock.setTimeout(() => this.#ask(), fault.retryAfterMs ?? RETRY_MS);
      } else if (channels.length > 1) {
        for (const channel of channels) this.#subscribe([channel]); // one of them is refused, not all
      } else {
        for (const channel of channels) {
          this.#open.add(channel); // not requested again on this connection
          this.setup.onRefused(channel, fault);
        }
      }
    });
  }
}
