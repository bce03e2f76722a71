import type { Channels } from "./channels.js";
import { Emitter } from "./emitter.js";
import type { Alert, LogEntry, MetricsRecord, ServerMessage } from "./generated/wire.js";
import { Store } from "./store.js";

/** Metrics: one record a second, and a history. */
export class Metrics extends Emitter<{ record: MetricsRecord }> {
  /** Oldest first. */
  readonly history = new Store<readonly MetricsRecord[]>([]);
  readonly latest = new Store<MetricsRecord | undefined>(undefined);

  /** @internal */
  constructor(
    private readonly channels: Channels,
    private readonly limit: number,
  ) {
    super();
  }

  /** Subscribes until the returned function is called, or `signal` aborts. */
  watch(options: { signal?: AbortSignal } = {}): () => void {
    return this.channels.hold("metrics", options.signal);
  }

  /** @internal */
  take(message: ServerMessage): void {
    if (message.type === "initial_state") this.#merge(message.history);
    else if (message.type === "metrics_update") {
      this.#merge([message.data]);
      this.emit("record", message.data);
    }
  }

  /** A snapshot after a reconnect overlaps the history. */
  #merge(records: readonly MetricsRecord[]): void {
    const [first] = records;
    if (!first) return;
    const before = this.history.get().filter((record) => record.timestamp < first.timestamp);
    const history = [...before, ...records].slice(-this.limit);
    this.history.set(history);
    this.latest.set(history.at(-1));
  }
}

export interface AlertEvents {
  /** An alert is new, or changed severity. */
  raised: Alert;
  resolved: Alert;
}

/** Active alerts. */
export class Alerts extends Emitter<AlertEvents> {
  /** Oldest first. */
  readonly active = new Store<readonly Alert[]>([]);

  /** @internal */
  constructor(private readonly channels: Channels) {
    super();
  }

  /** Subscribes until the returned function is called, or `signal` aborts. */
  watch(options: { signal?: AbortSignal } = {}): () => void {
    return this.channels.hold("alerts", options.signal);
  }

  /** @internal */
  take(message: ServerMessage): void {
    if (message.type === "initial_state") return this.#replace(message.alerts);
    if (message.type !== "alert" && message.type !== "alert_resolved") return;
    const others = this.active.get().filter((alert) => alert.id !== message.data.id);
    const raised = message.type === "alert";
    this.active.set(raised ? [...others, message.data] : others);
    this.emit(raised ? "raised" : "resolved", message.data);
  }

  /** Also emits what began or ended while there was no connection. */
  #replace(alerts: readonly Alert[]): void {
    const before = this.active.get();
    this.active.set(alerts);
    for (const alert of before) if (!alerts.some(({ id }) => id === alert.id)) this.emit("resolved", alert);
    for (const alert of alerts) {
      if (!before.some(({ id, type }) => id === alert.id && type === alert.type)) this.emit("raised", alert);
    }
  }
}

/** Log lines of all processes of the deployment. */
export class Logs extends Emitter<{ line: LogEntry }> {
  /** @internal */
  constructor(private readonly channels: Channels) {
    super();
  }

  /** Subscribes until the returned function is called, or `signal` aborts. */
  watch(options: { signal?: AbortSignal } = {}): () => void {
    return this.channels.hold("logs", options.signal);
  }

  /** @internal */
  take(message: ServerMessage): void {
    if (message.type === "log") this.emit("line", message.data);
  }
}
