import { useCallback, useEffect, useMemo, useRef } from "react";
import type { ConnectionStatus } from "../connection/connection.js";
import type { CredentialRequest } from "../credentials.js";
import type { TidingsError } from "../errors.js";
import type { Ack, Alert, MetricsRecord, RoomMessage, User } from "../generated/wire.js";
import type { JoinOptions } from "../joining.js";
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
  /** `removed`: the server ended the membership. Mounting again, or `room.join()`, tries again. */
  state: RoomState;
  /** Why the room is `refused` or `removed`. */
  error: TidingsError | undefined;
  /** Newest last. */
  messages: readonly RoomMessage[];
  /** Publishes; the message appears in `messages`, in order. The same function in every rendering. */
  publish: (content: unknown, options?: PublishOptions) => Promise<Ack>;
}

export interface UseRoomOptions extends Pick<JoinOptions, "data" | "token"> {
  /** Number of messages kept. Default 200. */
  limit?: number;
  /** Begin with the stored messages. */
  history?: boolean;
}

/** Joins a room while mounted. Other `data` in a later rendering replaces the earlier; `token` may be a new function each time. */
export function useRoom(name: string, { limit = 200, history = false, data, token }: UseRoomOptions = {}): RoomView {
  const client = useTidings();
  const room = client.room(name);
  const messages = useMemo(() => new Messages(room, limit, history), [room, limit, history]);
  useEffect(() => messages.follow(), [messages]);
  const given = useLatest(token);
  const text = typeof token === "string" ? token : undefined;
  const isAsked = typeof token === "function";
  // One function for all renderings, since another token is another join.
  const getToken = useCallback(
    (request: CredentialRequest) => (typeof given.current === "function" ? given.current(request) : (given.current ?? "")),
    [given],
  );
  const shown = useLatest(data);
  const dataKey = JSON.stringify(data);
  useEffect(
    () => room.hold({ data: shown.current, token: isAsked ? getToken : text }),
    [room, dataKey, text, isAsked, getToken, shown],
  );
  const state = useStore(room.state);
  const list = useStore(messages.shown);
  const publish = useCallback(
    (content: unknown, options?: PublishOptions) => room.publish(content, { echo: true, ...options }),
    [room],
  );
  return useMemo(
    () => ({ room, state, error: room.refusal, messages: list, publish }),
    [room, state, list, publish],
  );
}

/** Returns a reference to the value of the last rendering, for what is called later. */
function useLatest<T>(value: T): { readonly current: T } {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
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
