"""Everything that crosses a process boundary, as types.

- `names`     names of rooms, users and namespaces, and their one spelling on the bus
- `records`   objects that appear in several messages: users, metrics records, alerts, log lines
- `client`    what a client may send (protocol version 1)
- `server`    what a client may receive (protocol version 1)
- `codes`     error codes and close codes, and what each asks the client to do
- `content`   what clients send each other: checked once, where it enters; how it is refused
- `codec`     JSON and MessagePack
- `events`    what processes publish to each other
- `rpc`       requests between processes; `alerting` those about alert rules, windows and receivers
- `subjects`  where on the bus each of those goes

Only data and pure functions live here: no I/O, no clock.
"""
