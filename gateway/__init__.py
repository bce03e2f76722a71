"""The gateway: it terminates sockets and forwards to the bus; nothing in it must survive it.

- `http`      HTTP: the protocol with limits, middleware, the ASGI application
- `ws`        WebSocket: from a connection's first bytes to its end
- `sse`       Server-Sent Events: streams and their event ids
- `client`    what a client may ask for, as a core without I/O
- `channels`  presence, metrics, alerts, logs and broadcasts
- `delivery`  messages out: frames, fan-out, rooms, inboxes; messages in: the publisher
- `presence`  reports connections to presence_svc
- `auth`      identities and grants
- `api`       HTTP endpoints
- `dashboard` the page at `/`

`server` accepts and drains, `gateway` holds the parts, `__main__` wires them.
The gateway never imports redis and never knows another gateway.
"""
