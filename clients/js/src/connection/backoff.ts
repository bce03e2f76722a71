export interface BackoffOptions {
  /** Most milliseconds before the first attempt; doubled for each one after it. */
  firstMs: number;
  /** Most milliseconds before any. */
  longestMs: number;
}

/**
 * Returns how long to wait before an attempt: any time up to a limit that doubles ("full jitter"), so that clients
 * who lost the same server do not come back in one wave. What the server asked for comes on top of that.
 */
export function backoff(attempt: number, serverMs: number, options: BackoffOptions, random: () => number): number {
  const limit = Math.min(options.longestMs, options.firstMs * 2 ** Math.min(attempt, 30));
  return Math.round(serverMs + random() * limit);
}
