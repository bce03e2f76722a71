"""Structured logs: one pipeline for our own lines and those of libraries.

- `redaction`  what a line may never carry: secrets, payload bytes, control and bidirectional characters
- `setup`      structlog and stdlib logging through the same processors, as JSON or for a terminal
- `shipper`    copies lines to the bus, where metrics_svc makes the fleet's log stream of them

Take a logger with `structlog.get_logger(__name__)`. Bind what a line is about (`structlog.contextvars`:
connection, user, room); never pass a message's content.
"""
