"""The HTTP surface as an OpenAPI 3.1 document."""

import re
from functools import lru_cache
from typing import Any

import msgspec

from gateway.api.declarations import Access, Operation, Query
from gateway.api.routes import API_OPERATIONS
from gateway.contracts.schemas import Schema, components_of
from gateway.sse.operations import SSE_OPERATIONS
from gateway.ws.upgrade import PROTOCOL_VERSION
from services.wire.records import ErrorBody

CONTRACT_OPERATIONS = (
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        access=Access.ANYONE,
        answer=dict[str, Any],
    ),
    Operation(
        method="GET",
        path="/asyncapi.json",
        name="asyncapi",
        summary="The same for WebSocket and Server-Sent Events",
        access=Access.ANYONE,
        answer=dict[str, Any],
    ),
)

OPERATIONS = (*API_OPERATIONS, *SSE_OPERATIONS, *CONTRACT_OPERATIONS)

_IN_PATH = re.compile(r"\{(\w+)\}")
_SCHEMES: Schema = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
    "serverKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# An empty requirement means that the request may come without: under `open` none is needed.
_SECURITY: dict[Access, list[Schema]] = {
    Access.ANYONE: [],
    Access.READER: [{}, {"token": []}, {"ticket": []}, {"serverKey": []}],
    Access.SERVER: [{}, {"serverKey": []}, {"token": []}],
    Access.BEARER: [{}, {"token": []}],
    Access.USER: [{}, {"token": []}, {"ticket": []}],
}


@lru_cache(maxsize=1)
def openapi() -> Schema:
    """Return the document."""
    asked = {operation.body for operation in OPERATIONS if operation.body is not None}
    answered = {each for operation in OPERATIONS for each in _answers(operation)}
    schemas, components = components_of(sorted(asked, key=repr), [ErrorBody, *sorted(answered, key=repr)])
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _rendered(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": info("Tidings over HTTP"),
        "servers": [{"url": "/", "description": "The gateway that serves this document"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


def info(title: str) -> Schema:
    """Return the head that both documents share."""
    return {
        "title": title,
        # Of what is described. Which release runs here would tell strangers which faults to look for.
        "version": str(PROTOCOL_VERSION),
        "description": "Names and meanings are fixed for version 1 of the protocol. Fields may be added: "
        "a client ignores those that it does not know. Times are integer milliseconds since 1970.",
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def _rendered(operation: Operation, schemas: dict[str, Schema]) -> Schema:
    rendered: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.access.value,
        "tags": [_section(operation.path)],
        "parameters": [
            *map(_path_parameter, _IN_PATH.findall(operation.path)),
            *_parameters("query", operation.query),
            *_parameters("header", operation.headers),
        ],
        "security": _SECURITY[operation.access],
        "responses": {str(operation.status): _answer(operation, schemas), "default": _failure(schemas)},
    }
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[repr(operation.body)]}}
        rendered["requestBody"] = {"required": operation.body_required, "content": content}
    return rendered


def _answers(operation: Operation) -> list[Any]:
    return [each for each in (operation.answer, *operation.other_answers) if each is not None]


def _answer(operation: Operation, schemas: dict[str, Schema]) -> Schema:
    shapes = [schemas[repr(each)] for each in _answers(operation)]
    if not shapes:
        return {"description": "Done"}
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return {"description": operation.summary, "content": {operation.media_type: {"schema": schema}}}


def _failure(schemas: dict[str, Schema]) -> Schema:
    content = {"application/json": {"schema": schemas[repr(ErrorBody)]}}
    return {"description": "Refused or failed, with the status of its code", "content": content}


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameters(place: str, declared: tuple[Query, ...]) -> list[Schema]:
    return [
        {
            "name": each.name,
            "in": place,
            "description": each.meaning,
            "schema": msgspec.json.schema(each.type),
        }
        for each in declared
    ]


def _section(path: str) -> str:
    """Return the part of the surface that a path belongs to."""
    first, *rest = path.strip("/").split("/")
    return rest[0] if first == "api" else "operations" if first not in ("events",) else first
