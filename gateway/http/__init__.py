"""HTTP: the connection protocol with limits, middleware, and the ASGI application."""
