"""WebSocket.

- `doorway`     what a connection is until its first bytes
- `request`     an upgrade request, and the ordinary one taken apart at once
- `entrance`    who comes in at `/ws` and `/ws/echo` (ADR 0007)
- `negotiation` the subprotocol, compression, and refusals
- `protocol`    the asyncio protocol of one WebSocket
- `outlet`      its writing half
- `whole`       the ordinary frames, taken apart without the core
- `core`        the `websockets` sans-IO core, for all others
- `context`        what all connections of one server share
- `deadlines`   connections that have the same time to get something done
- `connection`  one client: its session, its memberships, and how effects are carried out
- `joining`     messages for rooms that the connection is still joining
- `direct`      a direct message, and whether its receiver is online
- `renewal`     going on with new credentials
- `echo`        the handler of `/ws/echo`
- `keepalive`   pings and idle time-outs of all connections, from one timer
"""
