"""Messages on their way to clients, and from clients to the bus.

- `encoded_message`     one message, encoded and framed once for all receivers
- `fanout`              the members who receive the same messages; joins what arrives while the loop is busy
- `fd_table`            sockets that a large room may write to directly (ADR 0008)
- `sequencer`           order and gaps of one durable log, as a core without I/O
- `recovery`            whether the messages that a client missed are complete, as a core without I/O
- `stream_subscription` the subscription to one log: live messages in order, gaps filled, members caught up
- `resync`              messages lost unseen, looked for after reconnects and elections
- `leader_watch`        elections of the streams' leaders
- `reads`               limits on reads from streams
- `rooms`               the rooms with members here, and their subscriptions
- `inbox`               the users with connections here, and their personal logs
- `streams`             the durable logs, by namespace, and the route of each room
- `history`             the stored messages of rooms, for the HTTP surface
- `publisher`           publishing to rooms, users and everyone
- `sanitizing`          harmless HTML, in namespaces that ask for it
- `counters`            what passed through this gateway, counted
"""
