"""Messages on their way to clients, and from clients to the bus.

- `encoded_message`     one message, encoded and framed once for all receivers
- `fanout`              members that receive the same messages; messages of one turn of the loop are joined
- `fd_table`            sockets that a large room may write to directly (ADR 0008)
- `sequencer`           order and gaps of one durable log, without I/O
- `recovery`            the verdict whether missed messages are complete, without I/O
- `stream_subscription` the subscription to one log: live messages in order, gaps filled
- `catch_up`            the messages that a member missed, or the newest, before its first live one
- `resync`              the search for messages lost unnoticed, after reconnects and elections
- `reads`               limits on reads from streams
- `rooms`               the rooms with members here
- `inbox`               the inboxes of users with connections here
- `streams`             the durable logs, by namespace, and the route of each room
- `newest`              the newest messages of a room, read from its stream
- `history`             the stored messages of rooms, for the HTTP API
- `publisher`           messages of clients and servers, published as events
- `sanitizing`          harmless HTML, in namespaces that are configured so
- `counters`            totals of this gateway
"""
