export { TidingsClient, type CallOptions, type ClientEvents } from "./client.js";
export type { Clock } from "./clock.js";
export type { Codec } from "./codec.js";
export type { ConnectionStatus } from "./connection/connection.js";
export type { State as ConnectionState } from "./connection/machine.js";
export type { CredentialCallback, CredentialRequest } from "./credentials.js";
export type { ListenOptions } from "./emitter.js";
export { TidingsError, type LocalErrorCode } from "./errors.js";
export type { AlertEvents, Alerts, Logs, Metrics } from "./feeds.js";
export type { ErrorCode } from "./generated/codes.js";
export type { Operations } from "./generated/http.js";
export type {
  Ack,
  Alert,
  AlertLogEntry,
  Broadcast,
  ClientMessage,
  DirectMessage,
  GatewayStats,
  LogEntry,
  MetricsRecord,
  Position,
  RoomMessage,
  RoomPast,
  RoomSummary,
  ServerMessage,
  Silence,
  Status,
  User,
  UserJoined,
  UserLeft,
  Welcome,
} from "./generated/wire.js";
export type { Inbox, InboxEvents } from "./inbox.js";
export type { JoinOptions } from "./joining.js";
export type { TidingsOptions } from "./options.js";
export type { Presence, PresenceEvents, Users } from "./presence.js";
export type { RequestOptions } from "./requests.js";
export type { HistoryOptions, PublishOptions, Room, RoomEvents, RoomState } from "./room.js";
export type { Store } from "./store.js";
export type { TransportKind } from "./transport/transport.js";
export type { WebSocketConstructor, WebSocketLike } from "./transport/websocket.js";
