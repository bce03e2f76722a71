"""The gateway: it terminates sockets and forwards to the bus; nothing in it must survive it.

- `ws`        WebSocket: from a connection's first bytes to its end
- `sse`       Server-Sent Events: streams and their positions
- `session`   what a client may ask for, as a core without I/O
- `delivery`  messages out: frames, fan-out, rooms, inboxes; messages in: the publisher
- `presence`  telling presence_svc who is here, and showing clients who is online
- `feeds`     metrics, alerts and logs as channels
- `auth`      who somebody is and what they may do
- `api`       the HTTP surface
- `page`      the page at `/`

`admission`, `addresses` and `user_limit` say how many connections there may be, and `stay` is what one of them holds of
that; `http_protocol` limits requests. `app` lists the routes, `server` accepts and drains, `core` holds the parts, `__main__` wires them.
The gateway never imports redis and never knows another gateway.
"""
