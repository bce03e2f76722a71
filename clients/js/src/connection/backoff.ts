export interface BackoffOptions {
  /** Longest wait before the first attempt; doubled for each later one. */
  firstMs: number;
  /** Longest wait before any attempt. */
  longestMs: number;
}

/**
 * Returns the wait before an attempt, in milliseconds: the server's `retryAfterMs`, plus a random time up to a limit
 * that doubles ("full jitter"), so that the clients of a lost server do not reconnect in one wave.
 */
export function backoff(attempt: number, serverMs: number, options: BackoffOptions, random: () => number): number {
  const limit = Math.min(options.longestMs, options.firstMs * 2 ** Math.min(attempt, 30));
  return Math.round(serverMs + random() * limit);
}
