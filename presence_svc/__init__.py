"""Who is online, where, with which status and data. Owns that state in Redis; never touches a socket.

- `changes`       the results of the store's operations, and net changes with their versions
- `policy`        how long things live, and what is announced
- `lua`           the rules, as scripts: leases, connections, users, rooms, grace; net changes and their versions
- `store`         presence state in Redis, by those scripts
- `script_queue`  running scripts: by hash, in order, many in one round trip
- `announcer`     changes as messages on the bus, until the bus has them
- `service`       the presence endpoints of `services.wire.rpc`; `sweeper` expires what is due
- `webhooks`      posting events of presence to applications' servers
"""
