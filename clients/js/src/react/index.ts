export { useRealtimeDashboard, type RealtimeDashboard } from "./dashboard.js";
export { useAlerts, useConnection, useMetrics, usePresence, useRoom, type RoomView, type UseRoomOptions } from "./hooks.js";
export { TidingsProvider, useTidings, type TidingsProviderProps } from "./provider.js";
