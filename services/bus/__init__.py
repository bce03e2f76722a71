"""The bus: NATS, with every trap of its client handled once.

What others use:

- `errors`      what can go wrong, drawn as a tree
- `client`      connect, publish, subscribe, request; heals itself; health by a probe through the bus
- `streams`     durable logs: ensure, publish and be acknowledged, read back in batches
- `kv`          small values under keys, each used at most once
- `rpc`         typed questions to micro services and typed answers
- `stats`       what it counts

What they are made of:

- `nats_client`   the nats-py client with a short path for messages; no other file touches its private attributes
- `connect`       one attempt to connect: addresses, credentials, versions, back-off
- `connection`    the client in use, replaced when it has closed for good
- `reply_inbox`, `requests`, `ack_publisher`   pending replies and acknowledgements
- `headers`, `message`, `jsapi`   bytes, and what they mean
- `probe`         whether messages come back
"""
