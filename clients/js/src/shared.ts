/** One operation that several callers wait for. It is abandoned when the last one has stopped waiting. */
export class Shared<T> {
  #waiters = 0;

  constructor(
    private readonly work: Promise<T>,
    private readonly giveUp: () => void,
  ) {}

  /** Settles as the operation does, or rejects with the signal's reason. */
  wait(signal?: AbortSignal): Promise<T> {
    this.#waiters++;
    if (!signal) return this.work;
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        unlisten();
        reject(signal.reason as Error);
        if (--this.#waiters === 0) this.giveUp();
      };
      const unlisten = (): void => signal.removeEventListener("abort", abort); // a signal may live much longer
      signal.addEventListener("abort", abort);
      this.work.then(resolve, reject).then(unlisten, unlisten);
    });
  }
}
