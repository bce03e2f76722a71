import { TidingsProvider } from "@tidings/client/react";
import { useCallback, useMemo, useState, type ReactElement } from "react";
import { makeSession, remember, rememberedWho, SessionContext, type Who } from "../session/session.js";
import { Shell } from "./Shell.js";

export function App(): ReactElement {
  const [who, setWho] = useState(rememberedWho);
  // Another name or token is another client; the signed session makes it the same user again.
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
