"""Presence as a gateway sees it.

- `link`    tells presence_svc which connections exist, in batches that also renew this gateway's lease
- `online`  whether users are online, for acknowledgements of direct messages
- `roster`  who is online, from a snapshot and diffs, as a core without I/O
- `views`   the `presence` and `presence:ROOM` channels
"""
