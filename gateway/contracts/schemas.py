"""Wire types as JSON Schema (2020-12) components, one namespace for clients' and servers' messages."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from services.wire import client, server
from services.wire.codec import PROTOCOL_VERSION

Schema = dict[str, Any]

_REF = "#/components/schemas/"
_CODE = re.compile(r"`([a-z0-9_]+)`")


def info(title: str) -> Schema:
    """Return the head that both documents share."""
    return {
        "title": title,
        # Of the protocol. The release that runs here would show attackers which faults to look for.
        "version": str(PROTOCOL_VERSION),
        "description": "Names and meanings are fixed for version 1 of the protocol. Fields may be added: "
        "a client ignores those that it does not know. Times are integer milliseconds since 1970.",
        "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }


def client_messages() -> tuple[type[client.ClientMessage], ...]:
    """Return the types of all messages that a client may send."""
    return client.AnyClientMessage.__args__


def server_messages() -> tuple[type[server.ServerMessage], ...]:
    """Return the types of all messages that a client may receive, in the order of their declaration."""
    return tuple(_leaves(server.ServerMessage))


def tag_of(kind: type[msgspec.Struct]) -> str:
    """Return the `type` of a message on the wire."""
    return str(kind.__struct_config__.tag)


def component_name(kind: type) -> str:
    """Return the name of a type in the contracts.

    Clients' messages are `Client…` and their `type`: three of them share it with what becomes of them. `Error` would
    hide what every JavaScript program knows by that name.
    """
    if kind in client_messages():
        return "Client" + "".join(word.capitalize() for word in tag_of(kind).split("_"))
    return "ErrorMessage" if kind is server.Error else kind.__name__


def components_of(
    asked: Sequence[Any], answered: Sequence[Any] = ()
) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """Return a schema for each type, by its `repr`, and the named components that they refer to.

    Types that are `asked` may omit fields that have a default; types that are `answered` have all that apply.
    """
    commands = [kind for kind in asked if kind in client_messages()]
    bodies = [kind for kind in asked if kind not in client_messages()]
    found: dict[str, Schema] = {}
    components: dict[str, Schema] = {}
    for types in (commands, [*bodies, *answered]):
        schemas, named = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
        names = {kind.__name__: component_name(kind) for kind in _structs(types)}
        found |= zip(map(repr, types), _renamed(list(schemas), names), strict=True)
        for name, schema in named.items():
            _add(components, names.get(name, name), _renamed(schema, names))
    for kind in _structs(answered):
        _require_defaults(kind, components[component_name(kind)])
    return found, {name: _described(name, components[name]) for name in sorted(components)}


def references(schema: Any) -> Iterator[str]:
    """Yield the name of each component that a schema or document refers to."""
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str) and target.startswith(_REF):
            yield target.removeprefix(_REF)
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def _leaves(base: type[server.ServerMessage]) -> Iterable[type[server.ServerMessage]]:
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from _leaves(kind)
        else:
            yield kind


def _structs(types: Iterable[Any]) -> Iterator[type[msgspec.Struct]]:
    """Yield every struct within the types."""
    pending: list[Any] = list(msgspec.inspect.multi_type_info(types))
    seen: set[type] = set()
    while pending:
        match pending.pop():
            case msgspec.inspect.StructType(cls=kind, fields=fields):
                if kind not in seen:
                    seen.add(kind)
                    yield kind
                    pending += [field.type for field in fields]
            case msgspec.inspect.UnionType(types=parts):
                pending += parts
            case msgspec.inspect.ListType(item_type=item):
                pending.append(item)
            case msgspec.inspect.DictType(value_type=value):
                pending.append(value)


def _require_defaults(kind: type[msgspec.Struct], schema: Schema) -> None:
    """Mark as required all fields that are always encoded: those with a default, unless defaults are omitted."""
    if not kind.__struct_config__.omit_defaults:
        always = [
            field.encode_name for field in msgspec.structs.fields(kind) if field.default is not msgspec.UNSET
        ]
        schema["required"] = [
            name for name in schema["properties"] if name in {*schema.get("required", ()), *always}
        ]


def _add(components: dict[str, Schema], name: str, schema: Schema) -> None:
    if components.setdefault(name, schema) != schema:
        raise ValueError(f"two different types are called {name}: a client could not distinguish them")


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if isinstance(schema, dict):
        return {key: _renamed(value, names) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_renamed(value, names) for value in schema]
    if isinstance(schema, str) and schema.startswith(_REF):
        name = schema.removeprefix(_REF)
        return _REF + names.get(name, name)
    return schema


def _described(name: str, schema: Schema) -> Schema:
    """Title a component, and spell fields in its description as the wire does: docstrings spell them as Python."""
    spelled = {_snake(field): field for field in schema.get("properties", {})}

    def on_wire(found: re.Match[str]) -> str:
        return f"`{spelled.get(found[1], found[1])}`"

    text = " ".join(schema.get("description", "").split())
    titled = schema | {"title": name} if "title" in schema else dict(schema)
    return titled | {"description": _CODE.sub(on_wire, text)} if text else titled


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda upper: f"_{upper[0].lower()}", name)
