"""What is written from declarations: types of both clients, and pages of the docs. Here is what the generators share.

- `python`, `typescript`  messages, operations and codes for each client
- `pages`                 the reference, metrics, and tables of codes
- `__main__`              writes the files, or checks that they are current
"""

from collections.abc import Iterator
from functools import cache

from gateway.contracts.asyncapi import asyncapi
from gateway.contracts.openapi import ENDPOINTS, openapi
from gateway.contracts.schemas import Schema
from services.wire.codes import CloseCode, CloseSpec


@cache
def schemas() -> dict[str, Schema]:
    """Return all schemas by name, in order."""
    found = {**asyncapi()["components"]["schemas"], **openapi()["components"]["schemas"]}
    return dict(sorted(found.items()))


def json_operations() -> Iterator[tuple[str, Schema, Schema]]:
    """Yield the operations that answer with JSON: `METHOD /path`, its declaration, and that of its answer."""
    for endpoint in ENDPOINTS:
        if endpoint.media_type == "application/json":
            declared = openapi()["paths"][endpoint.path][endpoint.method.lower()]
            yield f"{endpoint.method} {endpoint.path}", declared, declared["responses"][str(endpoint.status)]


def content_of(holder: Schema) -> Schema:
    schema: Schema = next(iter(holder["content"].values()))["schema"]
    return schema


def low_close_codes() -> list[CloseSpec]:
    """Return the close codes below 4000: the others say by their range whether a client reconnects."""
    return [member.value for member in CloseCode if member.number < 4000]
