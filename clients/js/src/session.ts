/** A text that survives a reload: the signed session, which keeps the user the same, or the transport that worked. */
export class Kept {
  #value: string | undefined;

  constructor(
    private readonly storage: Pick<Storage, "getItem" | "setItem"> | null,
    private readonly key: string,
  ) {
    this.#value = this.#try(() => this.storage?.getItem(this.key)) ?? undefined;
  }

  get value(): string | undefined {
    return this.#value;
  }

  keep(value: string | undefined): void {
    if (value === undefined || value === this.#value) return;
    this.#value = value;
    this.#try(() => this.storage?.setItem(this.key, value));
  }

  /** A storage that is full or forbidden only means that nothing survives a reload. */
  #try<T>(use: () => T): T | undefined {
    try {
      return use();
    } catch {
      return undefined;
    }
  }
}

/** Returns the page's session storage, or null where there is none or it is forbidden. */
export function pageStorage(): Pick<Storage, "getItem" | "setItem"> | null {
  try {
    return (globalThis as { sessionStorage?: Storage }).sessionStorage ?? null;
  } catch {
    return null; // forbidden by the browser's settings
  }
}
