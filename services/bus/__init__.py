"""The bus: NATS, with every trap of its client handled once.

What others use:

- `errors`      what can go wrong, drawn as a tree
- `client`      connect, publish, subscribe, request; heals itself; health by a probe through the bus
- `streams`     durable logs: ensure, publish and be acknowledged, read back in batches
- `kv`          small values under keys, each used at most once
- `rpc`         typed questions to micro services and typed answers
- `stats`       what it counts

What they are made of:

- `lean`        the nats-py client with a short path for messages; no other file touches its insides
- `connecting`  one attempt to connect: addresses, credentials, versions, back-off
- `link`        the client in use, replaced when it has closed for good
- `inbox`, `asking`, `publishing`   who waits for which answer
- `headers`, `message`, `jsapi`     bytes, and what they mean
- `probe`       whether messages come back
"""
