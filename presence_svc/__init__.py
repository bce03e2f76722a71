"""Who is online, where, with which status and data. Owns that state in Redis; never touches a socket.

- `status`         how the statuses of several connections become one
- `changes`        what a change of state looks like to those who asked for it, and to those who follow
- `lua`            the rules, as scripts: leases, connections, users, rooms, grace; net changes and their versions
- `store`          the interface to that state; `store` calls the scripts
- `scripts`        running scripts: by hash, in order, many in one round trip
- `announcements`  changes as messages on the bus
- `service`        the questions of `services.wire.rpc`, answered; `sweeper` makes time pass
"""
