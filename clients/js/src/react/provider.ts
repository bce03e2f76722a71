import { createContext, createElement, useContext, useEffect, useMemo, type ReactElement, type ReactNode } from "react";
import { TidingsClient } from "../client.js";
import type { TidingsOptions } from "../options.js";

const Context = createContext<TidingsClient | undefined>(undefined);

export type TidingsProviderProps = { children?: ReactNode } & (
  | { client: TidingsClient; url?: undefined; options?: undefined }
  | { client?: undefined; url: string; options?: TidingsOptions }
);

/**
 * Provides a client to the hooks below it, connected while mounted: `client`, or a new one for `url` and the `options`
 * of the first rendering with this `url`.
 */
export function TidingsProvider({ client, url, options, children }: TidingsProviderProps): ReactElement {
  const shown = useMemo(() => client ?? new TidingsClient(url, options), [client, url]);
  useEffect(() => shown.hold(), [shown]);
  return createElement(Context.Provider, { value: shown }, children);
}

/** Returns the client of the nearest provider. Throws where there is none. */
export function useTidings(): TidingsClient {
  const client = useContext(Context);
  if (!client) throw new Error("this hook needs a <TidingsProvider> above it");
  return client;
}
