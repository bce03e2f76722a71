"""WebSocket.

- `sniff`       the protocol of a new connection, chosen by its first bytes
- `negotiation` an upgrade request, and its answer: pure
- `handshake`   pending upgrades, and the rules for admitting a client (ADR 0007); `/ws/echo`
- `protocol`    the asyncio protocol of one open WebSocket: reads, writes, pings, closes
- `frames`      frames read, directly or by the `websockets` parser, and frames built
- `client`      one client as the gateway's parts see it
- `room_client` one client as a member of rooms
- `connection`  one client's messages, decoded and carried out
- `timers`      pings, idle time-outs and other time-outs, with one timer each
"""
