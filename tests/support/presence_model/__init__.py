"""A model of presence in plain Python: the oracle that the scripts of `presence_svc/lua` are tested against.

- `model`       the rules: leases, connections, users, rooms, grace; `MemoryPresenceStore`
- `change_set`  the model's net changes, and their versions
- `queues`      commits until they are acknowledged, events until they are delivered
"""
