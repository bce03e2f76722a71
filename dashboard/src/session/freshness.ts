import type { Metrics } from "@tidings/client";

/** When the newest record came, by the clock of this machine. */
export class Freshness {
  #receivedAt: number | undefined;

  constructor(metrics: Metrics) {
    metrics.on("record", () => (this.#receivedAt = Date.now()));
  }

  get receivedAt(): number | undefined {
    return this.#receivedAt;
  }
}
