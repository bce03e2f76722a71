import { TidingsProvider } from "@tidings/client/react";
import { useCallback, useMemo, useState, type ReactElement } from "react";
import { makeSession, remember, rememberedWho, SessionContext, type Who } from "../session/session.js";
import { Shell } from "./Shell.js";

export function App(): ReactElement {
  const [who, setWho] = useState(rememberedWho);
  // A new name or token needs a new client; the signed session keeps the user the same.
  const session = useMemo(() => makeSession(who), [who]);
  const become = useCallback((next: Who) => {
    remember(next);
    setWho(next);
  }, []);
  return (
    <SessionContext value={session}>
      <TidingsProvider client={session.client}>
        <Shell become={become} />
      </TidingsProvider>
    </SessionContext>
  );
}
