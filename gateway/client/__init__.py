"""Commands of clients: what a client may do, as a core without I/O and without a clock.

`ClientState.check(message, now)` takes a decoded message and returns the command to carry out, which
`gateway.ws.connection` and `gateway.api.messages` do.
"""
