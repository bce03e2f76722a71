"""Messages on their way to clients, and from clients to the bus.

- `outbound`    one message, encoded and framed once for all who receive it
- `fanout`      the members who receive the same messages; joins what comes while the loop is busy
- `descriptors` which sockets a large room may write to past their transports (ADR 0008)
- `sequencer`   order and gaps of one durable log, as a core without I/O
- `recovery`    whether what a client missed is all there, as a core without I/O
- `subscription`    one log followed: live messages in order, gaps filled, members caught up
- `rooms`       the rooms with members here, and their subscriptions
- `inbox`       the users with connections here, and their personal logs
- `logs`        the durable logs, by namespace
- `history`     reading what rooms keep, for the HTTP surface
- `elections`   noticing that a stream has another leader
- `publisher`   publishing to rooms, users and everyone
- `sanitizing`  content of namespaces that ask for it, made harmless before it is stored
- `counters`     what went through this gateway, counted
"""
