import { useCallback, useEffect, useMemo } from "react";
import type { ConnectionStatus } from "../connection/connection.js";
import type { Ack, Alert, MetricsRecord, RoomMessage, User } from "../generated/wire.js";
import type { PublishOptions, Room, RoomState } from "../room.js";
import { Messages } from "./messages.js";
import { useTidings } from "./provider.js";
import { useStore } from "./watching.js";

/** Returns the state of the connection. */
export function useConnection(): ConnectionStatus & { connected: boolean } {
  const status = useStore(useTidings().status);
  return useMemo(() => ({ ...status, connected: status.state === "connected" }), [status]);
}

export interface RoomView {
  room: Room;
  state: RoomState;
  /** Newest last. */
  messages: readonly RoomMessage[];
  /** Publishes; the message appears in `messages`, in order. The same function in every rendering. */
  publish: (content: unknown, options?: PublishOptions) => Promise<Ack>;
}

/** Joins a room while mounted. `limit`: number of messages kept. `history`: begin with the stored messages. */
export function useRoom(name: string, { limit = 200, history = false } = {}): RoomView {
  const client = useTidings();
  const room = client.room(name);
  const messages = useMemo(() => new Messages(room, limit, history), [room, limit, history]);
  useEffect(() => messages.follow(), [messages]);
  useEffect(() => room.hold(), [room]);
  const state = useStore(room.state);
  const shown = useStore(messages.shown);
  const publish = useCallback(
    (content: unknown, options?: PublishOptions) => room.publish(content, { echo: true, ...options }),
    [room],
  );
  return useMemo(() => ({ room, state, messages: shown, publish }), [room, state, shown, publish]);
}

/** Follows the users who are online, or in a room. `synced` is false while the list may be out of date. */
export function usePresence(room?: string): { users: readonly User[]; synced: boolean } {
  const client = useTidings();
  const presence = room === undefined ? client.presence : client.room(room).presence;
  useEffect(() => presence.watch(), [presence]);
  const users = useStore(presence.users);
  const synced = useStore(presence.synced);
  return useMemo(() => ({ users: [...users.values()], synced }), [users, synced]);
}

/** Follows the metrics of the deployment, oldest record first. */
export function useMetrics(): { latest: MetricsRecord | undefined; history: readonly MetricsRecord[] } {
  const { metrics } = useTidings();
  useEffect(() => metrics.watch(), [metrics]);
  const history = useStore(metrics.history);
  return useMemo(() => ({ latest: history.at(-1), history }), [history]);
}

/** Follows the active alerts. */
export function useAlerts(): readonly Alert[] {
  const { alerts } = useTidings();
  useEffect(() => alerts.watch(), [alerts]);
  return useStore(alerts.active);
}
