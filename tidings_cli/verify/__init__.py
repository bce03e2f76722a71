"""Proof of delivery from the outside: clients that record what they see, and a checker of their records.

- `history`    the record format: one event a line
- `checker`    proves the guarantees from a history; no I/O, no clock
- `report`     findings and their text
- `client`     base of all clients: reconnects with back-off, and joins its rooms
- `member`     receives over a WebSocket, and resumes after each loss
- `stream_member`  the same over Server-Sent Events
- `publisher`  publishes, and retries with the same id until it has an answer
- `campaign`   the command: members and publishers together for a while, then the check

It uses none of the clients that Tidings ships: a fault that they share with the gateway would stay unseen.
"""
