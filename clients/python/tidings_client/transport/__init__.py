"""One connection to a server: a WebSocket, or a stream with HTTP beside it."""
