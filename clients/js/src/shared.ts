/** One piece of work for all who ask for it. It is given up when nobody waits for it any more. */
export class Shared<T> {
  #waiters = 0;

  constructor(
    private readonly work: Promise<T>,
    private readonly giveUp: () => void,
  ) {}

  /** Resolves and rejects as the work does, or rejects with the signal's reason. */
  wait(signal?: AbortSignal): Promise<T> {
    this.#waiters++;
    if (!signal) return this.work;
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        unlisten();
        reject(signal.reason as Error);
        if (--this.#waiters === 0) this.giveUp();
      };
      const unlisten = (): void => signal.removeEventListener("abort", abort); // signals may outlive much work
      signal.addEventListener("abort", abort);
      this.work.then(resolve, reject).then(unlisten, unlisten);
    });
  }
}
