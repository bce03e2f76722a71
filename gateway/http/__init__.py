"""HTTP: the connection protocol with limits, client addresses, and the ASGI application with its middleware."""
