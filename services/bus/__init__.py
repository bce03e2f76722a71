"""The bus: NATS, with every trap of its client handled once.

For other packages:

- `errors`      the exceptions, drawn as a tree
- `client`      connect, publish, subscribe, request; reconnects by itself; health by a probe through the bus
- `streams`     durable logs: create, publish with acknowledgement, read back in batches
- `specs`       the list of streams
- `rpc`         typed requests to micro services and typed replies
- `stats`       counts, and the probe

Their parts:

- `nats_client`   the nats-py client with a short path for messages; no other file touches its private attributes
- `connection`    the client in use: opened, watched and replaced; `connect`: addresses, TLS and faults of an attempt
- `reply_inbox`, `ack_publisher`   pending requests and acknowledgements
- `message`, `jsapi`   bytes, and what they mean
"""
