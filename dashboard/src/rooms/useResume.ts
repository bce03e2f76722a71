import type { Room } from "@tidings/client";
import { useEffect, useReducer } from "react";
import { useClient } from "../session/session.js";
import { next, NOTHING_YET, type Watch } from "./resume.js";

/** Watches how a room recovers after a reconnect. */
export function useResume(room: Room): Watch {
  const client = useClient();
  const [watch, update] = useReducer(next, NOTHING_YET);
  useEffect(() => {
    const gone = new AbortController();
    const { signal } = gone;
    let joined = room.state.get() === "joined";
    const look = (): void => {
      const now = room.state.get() === "joined";
      if (joined && !now && client.status.get().state !== "closed") update({ type: "down", now: Date.now() });
      joined = now;
    };
    const unsubscribe = room.state.subscribe(look);
    room.on("message", ({ seq }) => update({ type: "message", seq }), { signal });
    room.on("joined", ({ recovered }) => update({ type: "joined", now: Date.now(), recovered }), { signal });
    return () => {
      unsubscribe();
      gone.abort();
    };
  }, [client, room]);
  return watch;
}
