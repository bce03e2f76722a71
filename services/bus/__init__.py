"""The bus: NATS, with every trap of its client handled once.

For others:

- `errors`      what can go wrong, drawn as a tree
- `client`      connect, publish, subscribe, request; heals itself; health by a probe through the bus
- `streams`     durable logs: ensure, publish and be acknowledged, read back in batches
- `specs`       the list of streams
- `rpc`         typed questions to micro services and typed answers
- `stats`       counts, and the probe: whether messages come through

Their parts:

- `nats_client`   the nats-py client with a short path for messages; no other file touches its private attributes
- `connect`       one attempt to connect: addresses, credentials, versions, back-off
- `connection`    the client in use, replaced when it has closed for good
- `reply_inbox`, `requests`, `ack_publisher`   pending replies and acknowledgements
- `message`, `jsapi`   bytes, and what they mean
"""
