"""Messages on their way to clients, and from clients to the bus.

- `outbound`   one message, encoded and framed once for all who receive it
- `fanout`     the members who receive the same messages; joins what comes while the loop is busy
- `direct`     which sockets a large room may write to past their transports (ADR 0008)
- `sequencer`  order and gaps of one durable log, as a core without I/O
- `rooms`      the rooms with members here, and their subscriptions
- `elections`  noticing that a stream has another leader
- `inbox`      the users with connections here, and their personal logs
- `logs`       the durable logs, by namespace
- `publisher`  publishing to rooms, users and everyone
"""
