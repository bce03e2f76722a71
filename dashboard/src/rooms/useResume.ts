import type { Room } from "@tidings/client";
import { useEffect, useReducer } from "react";
import { useClient } from "../session/session.js";
import { next, NOTHING_YET, type Watch } from "./resume.js";

/** Watches how a room recovers after a reconnect. */
export function useResume(room: Room): Watch {
  const client = useClient();
  const [watch, tell] = useReducer(next, NOTHING_YET);
  useEffect(() => {
    const gone = new AbortController();
    const { signal } = gone;
    let joined = room.state.get() === "joined";
    const look = (): void => {
      const now = room.state.get() === "joined";
      if (joined && !now && client.status.get().state !== "closed") tell({ type: "down", now: Date.now() });
      joined = now;
    };
    const unsubscribe = room.state.subscribe(look);
    room.on("message", ({ seq }) => tell({ type: "message", seq }), { signal });
    room.on("joined", ({ recovered }) => tell({ type: "joined", now: Date.now(), recovered }), { signal });
    return () => {
      unsubscribe();
      gone.abort();
    };
  }, [client, room]);
  return watch;
}
