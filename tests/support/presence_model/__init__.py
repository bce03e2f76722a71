"""A model of presence in plain Python: the oracle that the scripts of `presence_svc/lua` are tested against.

- `model`    the rules, pure: leases, connections, users, rooms, grace; time passed in
- `ledger`   the model's net changes, and the versions they get
- `waiting`  what waits: steps for confirmation, events for webhook targets
- `store`    the model as a `presence_svc.policy.PresenceStore`
"""
