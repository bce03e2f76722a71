export type Listener<T> = (event: T) => void;

export interface ListenOptions {
  /** Stops listening when it aborts. */
  signal?: AbortSignal | undefined;
  once?: boolean;
}

/** Typed events. An exception in a listener affects neither the other listeners nor the connection. */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /** Calls `listener` for each event. Returns a function that stops it. */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>, options: ListenOptions = {}): () => void {
    if (options.signal?.aborted) return () => undefined;
    const entry: Listener<Events[Name]> = (event) => {
      if (options.once) off();
      listener(event);
    };
    const off = (): void => {
      this.#listeners.get(name)?.delete(entry);
      options.signal?.removeEventListener("abort", off);
    };
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(entry));
    options.signal?.addEventListener("abort", off);
    return off;
  }

  /** Resolves with the next event of that name. */
  once<Name extends keyof Events>(name: Name, options: { signal?: AbortSignal } = {}): Promise<Events[Name]> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = (): void => reject(signal?.reason as Error);
      signal?.addEventListener("abort", abort);
      const heard = (event: Events[Name]): void => {
        signal?.removeEventListener("abort", abort);
        resolve(event);
      };
      this.on(name, heard, { signal, once: true });
    });
  }

  /** @internal */
  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      protect(() => (listener as Listener<Events[Name]>)(event));
    }
  }
}

/** Calls the application's callback. Its exceptions are reported as uncaught, after the client's own work. */
export function protect(callback: () => void): void {
  try {
    callback();
  } catch (fault) {
    queueMicrotask(() => {
      throw fault;
    });
  }
}
