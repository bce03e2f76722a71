import type { Credentials } from "./credentials.js";
import type { Endpoint, QueryValue } from "./endpoint.js";
import { TidingsError } from "./errors.js";
import type { Operations } from "./generated/http.js";
import type { ErrorBody } from "./generated/wire.js";

export type OperationName = keyof Operations;

/** `Part` as an argument: absent, optional or required. */
type Given<Part extends string, T> = [T] extends [Record<string, never> | undefined]
  ? unknown
  : undefined extends T
    ? Partial<Record<Part, T>>
    : object extends T
      ? Partial<Record<Part, T>>
      : Record<Part, T>;

/** Arguments of an operation: those of `path`, `query` and `body` that it has. */
export type Arguments<Name extends OperationName> = Given<"path", Operations[Name]["path"]> &
  Given<"query", Operations[Name]["query"]> &
  Given<"body", Operations[Name]["body"]> & { signal?: AbortSignal | undefined };

/** An operation without required arguments may be called with its name alone. */
export type Asked<Name extends OperationName> = object extends Arguments<Name>
  ? [given?: Arguments<Name>]
  : [given: Arguments<Name>];

export type Answer<Name extends OperationName> = Operations[Name]["answer"];

/** The HTTP API, typed by its OpenAPI contract. */
export class Http {
  constructor(
    private readonly endpoint: Endpoint,
    private readonly credentials: Credentials,
    private readonly fetch: typeof globalThis.fetch,
  ) {}

  /** Carries out one operation. Rejects with a TidingsError if it is refused. */
  async request<Name extends OperationName>(
    name: Name,
    given: Arguments<Name> | undefined,
    headers: Record<string, string> = {},
  ): Promise<Answer<Name>> {
    const { path = {}, query = {}, body, signal } = (given ?? {}) as {
      path?: Record<string, string>;
      query?: Record<string, QueryValue>;
      body?: unknown;
      signal?: AbortSignal;
    };
    const [method = "GET", template = "/"] = name.split(" ");
    const filled = template.replace(/\{(\w+)\}/g, (_, part: string) => {
      const value = path[part];
      if (!value) throw new TypeError(`${name} needs path.${part}`);
      return encodeURIComponent(value);
    });
    const response = await this.open(filled, query, {
      method,
      ...(signal && { signal }),
      headers: { ...headers, ...(body !== undefined && { "Content-Type": "application/json" }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (response.status === 204) return undefined;
    return (await response.json().catch(() => Promise.reject(notOurs(response)))) as Answer<Name>;
  }

  /** Sends a request as this user. Rejects with a TidingsError for any status but success. */
  open(path: string, query: Record<string, QueryValue>, init: RequestInit): Promise<Response> {
    const signal = init.signal ?? new AbortController().signal;
    return this.credentials.show(signal, async (token, ticket) => {
      const headers = { ...(init.headers as object), ...(token !== undefined && { Authorization: `Bearer ${token}` }) };
      const response = await this.fetch(this.endpoint.http(path, { ...query, ticket }), {
        ...init,
        headers,
        cache: "no-store",
      });
      if (!response.ok) throw await refusal(response);
      return response;
    });
  }
}

async function refusal(response: Response): Promise<TidingsError> {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  const retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : undefined;
  const body = (await response.json().catch(() => undefined)) as Partial<ErrorBody> | undefined;
  if (typeof body?.code !== "string") return notOurs(response, retryAfterMs);
  return new TidingsError({ message: "", retryAfterMs, ...body, code: body.code });
}

/** The answer is not from the server, but for example a proxy's error page. It is retryable: a proxy's refusal may pass. */
function notOurs({ status }: Response, retryAfterMs?: number): TidingsError {
  return new TidingsError({ code: "blocked", message: `something on the way answered ${status}`, retryable: true, retryAfterMs });
}
