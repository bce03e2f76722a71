"""The HTTP surface as an OpenAPI 3.1 document."""

import re
from functools import lru_cache
from typing import Any

import msgspec

from gateway.api import alerts, connections, health, logs, messages, metrics, presence, publish, rooms, users
from gateway.api.endpoint import ANYONE, Call, HttpEndpoint, IntegerQuery, Query, endpoint, endpoints_of
from gateway.api.otlp import export
from gateway.contracts import asyncapi
from gateway.contracts.schemas import Schema, components_of, info
from gateway.sse import endpoints as sse
from services.wire.records import ErrorBody


@endpoint("GET", "/openapi.json", ANYONE, name="openapi")
async def serve_openapi(_call: Call) -> dict[str, Any]:
    """This document."""
    return openapi()


# All that a gateway serves over HTTP but for the page, in the order of the document.
ENDPOINTS: tuple[HttpEndpoint, ...] = (
    *endpoints_of(
        presence, metrics, export, alerts, logs, publish, messages, rooms, connections, users, health, sse
    ),
    serve_openapi,
    *endpoints_of(asyncapi),
)

_IN_PATH = re.compile(r"\{(\w+)\}")
_SCHEMES: Schema = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


@lru_cache(maxsize=1)
def openapi() -> Schema:
    """Return the document."""
    asked = {endpoint.body for endpoint in ENDPOINTS if endpoint.body is not None}
    answered = {each for endpoint in ENDPOINTS for each in endpoint.answers}
    schemas, components = components_of(sorted(asked, key=repr), [ErrorBody, *sorted(answered, key=repr)])
    paths: dict[str, Schema] = {}
    for each in ENDPOINTS:
        paths.setdefault(each.path, {})[each.method.lower()] = _rendered(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": info("Tidings over HTTP"),
        "servers": [{"url": "/", "description": "The gateway that serves this document"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


def _rendered(endpoint: HttpEndpoint, schemas: dict[str, Schema]) -> Schema:
    rendered: Schema = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": endpoint.access.rule,
        "tags": [_section(endpoint.path)],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in _IN_PATH.findall(endpoint.path)
            ),
            *_parameters("query", endpoint.query),
            *_parameters("header", endpoint.headers),
        ],
        "security": list(endpoint.access.security),
        "responses": {str(endpoint.status): _answer(endpoint, schemas), "default": _failure(schemas)},
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[repr(endpoint.body)]}}
        rendered["requestBody"] = {"required": endpoint.body_required, "content": content}
    return rendered


def _answer(endpoint: HttpEndpoint, schemas: dict[str, Schema]) -> Schema:
    shapes = [schemas[repr(each)] for each in endpoint.answers]
    if not shapes:
        return {"description": "Done"}
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return {"description": endpoint.summary, "content": {endpoint.media_type: {"schema": schema}}}


def _failure(schemas: dict[str, Schema]) -> Schema:
    content = {"application/json": {"schema": schemas[repr(ErrorBody)]}}
    return {"description": "Refused or failed, with the status of its code", "content": content}


def _parameters(position: str, declared: tuple[Query | IntegerQuery, ...]) -> list[Schema]:
    return [
        {
            "name": each.name,
            "in": position,
            "description": each.meaning,
            "schema": msgspec.json.schema(each.type),
        }
        for each in declared
    ]


def _section(path: str) -> str:
    """Return the part of the surface that a path belongs to."""
    first, *rest = path.strip("/").split("/")
    return rest[0] if first == "api" else "events" if first == "events" else "operations"
