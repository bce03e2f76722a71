"""The contracts that clients are written against, made from the types and endpoints that the gateway itself uses.

- `schemas`   wire types as JSON Schema components
- `openapi`   all HTTP endpoints, and their document at `/openapi.json` (OpenAPI 3.1)
- `asyncapi`  WebSocket and Server-Sent Events, at `/asyncapi.json` (AsyncAPI 3.0)

Nothing here is written twice: a field that is added to a wire type is in all of these, and in what `tidings_cli.generate`
writes for the clients.
"""
