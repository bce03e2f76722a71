"""Proving delivery from the outside: clients that write down what they see, and a checker of what they wrote.

- `history`   what is written down: one event a line
- `checker`   proves the guarantees from a history; no I/O, no clock
- `ledger`    what the checker knows of one log (a room) and of one member of it
- `report`    the checker's findings, and their text
- `gateways`  connecting to any of several gateways, with back-off and jitter
- `client`    a client over all its connections
- `member`    a client that receives, and resumes after each loss
- `stream_member`  the same over Server-Sent Events; `sse` reads them
- `publisher` a client that publishes, and retries with the same id until it is told
- `campaign`  members and publishers together for a while
"""
