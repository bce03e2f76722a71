"""Who is online, where, with which status and data. Owns that state in Redis; never touches a socket.

- `status`         how the statuses of several connections become one
- `changes`        what a change of state looks like to those who asked for it, and to those who follow
- `model`          the rules, pure: leases, connections, users, rooms, grace; time passed in
- `ledger`         the model's net changes, and the versions they get
- `store`          the interface; `store_memory` is the model, `store_redis` the same rules as scripts in `lua/`
- `scripts`        running those scripts: by hash, in order, many in one round trip
- `announcements`  changes as messages on the bus
- `service`        the questions of `services.wire.rpc`, answered; `sweeper` makes time pass
"""
