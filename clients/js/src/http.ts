import type { Credentials } from "./credentials.js";
import type { Endpoint, QueryValue } from "./endpoint.js";
import { TidingsError } from "./errors.js";
import type { Operations } from "./generated/http.js";
import type { ErrorBody } from "./generated/wire.js";

export type OperationName = keyof Operations;

/** What an operation needs: only those of `path`, `query` and `body` that it has. */
export type Arguments<Name extends OperationName> = {
  [Part in "path" | "query" | "body" as Operations[Name][Part] extends Record<string, never> | undefined
    ? never
    : Part]?: Operations[Name][Part];
} & { signal?: AbortSignal | undefined };

export type Answer<Name extends OperationName> = Operations[Name]["answer"];

const RETRYABLE_FROM = 500;

/** The HTTP surface, typed by the contract. */
export class Http {
  constructor(
    private readonly endpoint: Endpoint,
    private readonly credentials: Credentials,
    private readonly fetch: typeof globalThis.fetch,
  ) {}

  /** Carries out one operation. Rejects with a TidingsError where it is refused. */
  async request<Name extends OperationName>(name: Name, given: Arguments<Name>): Promise<Answer<Name>> {
    const { path = {}, query = {}, body, signal } = given as {
      path?: Record<string, string>;
      query?: Record<string, QueryValue>;
      body?: unknown;
      signal?: AbortSignal;
    };
    const [method = "GET", template = "/"] = name.split(" ");
    const filled = template.replace(/\{(\w+)\}/g, (_, part: string) => encodeURIComponent(path[part] ?? ""));
    const response = await this.open(filled, query, {
      method,
      ...(signal && { signal }),
      ...(body !== undefined && { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
    });
    return (response.status === 204 ? undefined : await response.json()) as Answer<Name>;
  }

  /** Sends a request as this user. Rejects with a TidingsError for any status but success. */
  open(path: string, query: Record<string, QueryValue>, init: RequestInit): Promise<Response> {
    return this.credentials.show(async () => {
      const signal = init.signal ?? new AbortController().signal;
      const token = await this.credentials.token(signal);
      const ticket = token === undefined ? await this.credentials.ticket(signal) : undefined;
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
  const retryable = response.status >= RETRYABLE_FROM || response.status === 429;
  const fallback = { code: "internal", message: `the server answered ${response.status}`, retryable, retryAfterMs };
  try {
    const body = (await response.json()) as Partial<ErrorBody>;
    if (typeof body.code === "string") return new TidingsError({ ...fallback, ...body });
  } catch {
    // Not from this server: a proxy's page, for one. Its status is all there is to know.
  }
  return new TidingsError(fallback);
}
