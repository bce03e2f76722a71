/** The address of a server: `http://host`, `ws://host/ws`, or `/` for the page's own host. */
export class Endpoint {
  readonly #base: string;

  constructor(url: string) {
    const page = (globalThis as { location?: { href: string } }).location?.href;
    // Rendered on a server there is no page and nothing is opened: a relative address must not break the rendering.
    const parsed = new URL(url, page?.startsWith("http") ? page : url.startsWith("/") ? "http://localhost" : undefined);
    if (!/^(http|ws)s?:$/.test(parsed.protocol)) throw new TypeError(`not an address of a server: ${url}`);
    parsed.search = parsed.hash = "";
    this.#base = parsed.href.replace(/^ws/, "http").replace(/\/(ws)?$/, "");
  }

  /** Returns the address of a path over HTTP. */
  http(path: string, query: Record<string, QueryValue> = {}): string {
    return this.#base + path + search(query);
  }

  /** Returns the address of the WebSocket. */
  ws(query: Record<string, QueryValue>): string {
    return this.http("/ws", query).replace(/^http/, "ws");
  }
}

export type QueryValue = string | number | undefined;

function search(query: Record<string, QueryValue>): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text && `?${text}`;
}
