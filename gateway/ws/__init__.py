"""WebSocket.

- `protocol`    the asyncio protocol that uvicorn runs for upgrades: RFC 6455 by the `websockets` sans-IO core
- `handshake`   the ASGI side of an upgrade: scope, refusal, hand-over (ADR 0003)
- `negotiation` the subprotocol, compression, and refusals
- `connection`  one client: its session, its memberships, and how effects are carried out
- `renewal`     going on with new credentials
- `echo`        the handler of `/ws/echo`
- `endpoints`   the ASGI endpoints of `/ws` and `/ws/echo`
- `keepalive`   pings and idle time-outs of all connections, from one timer
"""
