/** A text that outlives a reload: the signed session that makes it the same user, and the transport that worked. */
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

  /** A storage that is full or forbidden costs what is kept on reload, nothing else. */
  #try<T>(use: () => T): T | undefined {
    try {
      return use();
    } catch {
      return undefined;
    }
  }
}

/** Returns the page's session storage, where there is one that may be used. */
export function pageStorage(): Pick<Storage, "getItem" | "setItem"> | null {
  try {
    return (globalThis as { sessionStorage?: Storage }).sessionStorage ?? null;
  } catch {
    return null; // forbidden by the browser's settings
  }
}
