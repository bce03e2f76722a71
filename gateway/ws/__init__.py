"""WebSocket.

- `protocol`    the asyncio protocol that uvicorn runs for upgrades: RFC 6455 by the `websockets` sans-IO core
- `handshake`   the ASGI side of an upgrade: scope and refusal (ADR 0003)
- `upgrade`     one handshake under way: its time limit, and the application's decision
- `negotiation` the subprotocol, compression, and refusals
- `connection`  one client: its session, its memberships, and how effects are carried out
- `joining`     messages for rooms that the connection is still joining
- `renewal`     going on with new credentials
- `echo`        the handler of `/ws/echo`
- `endpoints`   the ASGI endpoints of `/ws` and `/ws/echo`
- `keepalive`   pings and idle time-outs of all connections, from one timer
"""
