"""Transports: a WebSocket, or an SSE stream with HTTP requests beside it."""
