"""The contracts that clients are written against, made from the types and tables that the gateway itself uses.

- `schemas`     wire types as JSON Schema components
- `openapi`     the HTTP surface (OpenAPI 3.1)
- `asyncapi`    WebSocket and Server-Sent Events (AsyncAPI 3.0)
- `typescript`  the same components as TypeScript types
- `serving`     `/openapi.json` and `/asyncapi.json`
- `__main__`    writes, or checks, the files that are generated into clients

Nothing here is written twice: a field that is added to a wire type is in all of these.
"""
