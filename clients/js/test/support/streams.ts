/** What `fetch` answers in tests of the fallback: streams that the test writes to, and publishes that it sees. */
import { vi } from "vitest";

export class FakeStream {
  ended = false;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly response: Response;

  constructor(
    readonly url: URL,
    readonly headers: Headers,
    signal: AbortSignal | null | undefined,
  ) {
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#controller = controller) });
    this.response = new Response(body, { headers: { "content-type": "text/event-stream" } });
    signal?.addEventListener("abort", () => {
      if (!this.ended) this.#controller.error(signal.reason);
      this.ended = true;
    });
  }

  list(name: string): string[] {
    return (this.url.searchParams.get(name) ?? "").split(",").filter(Boolean);
  }

  write(text: string): void {
    this.#controller.enqueue(new TextEncoder().encode(text));
  }

  event(type: string, data: unknown, id?: string): void {
    this.write(`event: ${type}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`);
  }

  message(message: { type: string }, id?: string): void {
    this.event(message.type, message, id);
  }

  end(): void {
    this.ended = true;
    this.#controller.close();
  }
}

export class FakeStreams {
  readonly streams: FakeStream[] = [];
  /** What was sent over HTTP: the operation, what went with it, and which stream it named. */
  readonly sent: [operation: string, body: unknown, connection: string | null][] = [];
  userId = "u-me";
  /** Answers instead of a stream, one for each request to come. */
  readonly refusals: Response[] = [];
  greets = true;
  /** What publishes wait for. */
  slow: Promise<unknown> | undefined;
  /** Rooms and channels for which a stream is refused, with all that it asked for. */
  forbidden: string[] = [];
  refused = 0;

  readonly fetch = vi.fn<typeof fetch>(async (input, init) => {
    const url = new URL(input as string);
    const refusal = this.refusals.shift();
    if (refusal) return refusal;
    if (init?.method === "POST" || init?.method === "PUT") {
      await this.slow;
      const connection = new Headers(init.headers).get("Tidings-Connection");
      this.sent.push([`${init.method} ${url.pathname}${url.search}`, JSON.parse(init.body as string), connection]);
      return Response.json({ type: "ack", epoch: "e1", seq: this.sent.length, timestamp: 1 });
    }
    const stream = new FakeStream(url, new Headers(init?.headers), init?.signal);
    if ([...stream.list("rooms"), ...stream.list("channels")].some((name) => this.forbidden.includes(name))) {
      this.refused++;
      return Response.json({ code: "forbidden", message: "no", retryable: false }, { status: 403 });
    }
    this.streams.push(stream);
    const [connectionId, userId] = [`s${this.streams.length}`, this.userId];
    const greeting = { status: "connected", connectionId, userId, username: "Ada", session: "signed" };
    if (this.greets) stream.event("connected", greeting);
    return stream.response;
  });

  get last(): FakeStream {
    return this.streams.at(-1)!;
  }
}
