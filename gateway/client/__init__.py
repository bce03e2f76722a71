"""What a client may ask for, as a core without I/O and without a clock.

`ClientState.receive(message, now)` takes a decoded message and returns effects: what the connection must do. The
connection carries them out (`gateway.ws.connection`).
"""
