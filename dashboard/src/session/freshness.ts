import type { Metrics } from "@tidings/client";

/** When the newest record arrived, by this machine's clock. */
export class Freshness {
  #receivedAt: number | undefined;

  constructor(metrics: Metrics) {
    metrics.on("record", () => (this.#receivedAt = Date.now()));
  }

  get receivedAt(): number | undefined {
    return this.#receivedAt;
  }
}
