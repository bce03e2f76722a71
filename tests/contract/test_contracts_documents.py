"""The OpenAPI and AsyncAPI documents: valid, complete, and in agreement with the routes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.contracts.asyncapi import REPLIES, asyncapi
from gateway.contracts.openapi import ENDPOINTS, openapi
from gateway.contracts.schemas import client_messages, component_name, server_messages
from services.settings import Settings
from tests.support.api import FakeDeps, api_client
from tidings_cli.generate import __main__ as writer
from tidings_cli.generate.pages import BEGIN, END
from tidings_cli.generate.python import field_name
from tidings_cli.generate.python import type_of as python_type_of
from tidings_cli.generate.typescript import type_of

ROOT = Path(__file__).resolve().parents[2]


def test_openapi_is_valid() -> None:
    OpenAPIV31SpecValidator(openapi()).validate()  # type: ignore[arg-type]


def test_operation_names_are_unique() -> None:
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(set(names)) == len(names)


def test_parameters_of_a_path_are_declared() -> None:
    for path, methods in openapi()["paths"].items():
        for operation in methods.values():
            declared = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path)), path


def _pointers(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _pointers(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pointers(value)


@pytest.mark.parametrize("document", [openapi, asyncapi])
def test_every_reference_leads_somewhere(document: Any) -> None:
    whole = document()
    for pointer in _pointers(whole):
        node = whole
        for step in pointer.removeprefix("#/").split("/"):
            node = node[step.replace("~1", "/").replace("~0", "~")]
        assert isinstance(node, dict), pointer


@pytest.mark.parametrize("document", [openapi, asyncapi])
def test_every_schema_is_used(document: Any) -> None:
    whole = document()
    used = {pointer.rpartition("/")[2] for pointer in _pointers(whole) if "/schemas/" in pointer}
    assert set(whole["components"]["schemas"]) == used


def test_every_message_is_in_the_document() -> None:
    document = asyncapi()
    assert set(REPLIES) <= set(client_messages())
    named = {component_name(kind) for kind in (*client_messages(), *server_messages())}
    assert set(document["components"]["messages"]) == named
    assert set(document["channels"]["websocket"]["messages"]) == named


def test_answers_have_all_fields_and_requests_need_not() -> None:
    schemas = openapi()["components"]["schemas"]
    assert schemas["Network"]["required"] == ["in", "out"]
    assert schemas["PublishRequest"]["required"] == ["content"]


def test_descriptions_spell_fields_as_the_wire_does() -> None:
    for document in (openapi(), asyncapi()):
        for name, schema in document["components"]["schemas"].items():
            for word in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", schema.get("description", "")):
                camel = re.sub(r"_(\w)", lambda found: found[1].upper(), word)
                assert camel not in schema.get("properties", {}), f"{name}: `{word}`"


def test_typescript_of_schemas() -> None:
    assert type_of({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string | null"
    assert type_of({"type": "array", "items": {"enum": ["a", "b"]}}) == '("a" | "b")[]'
    assert type_of({"type": "object", "additionalProperties": {"type": "number"}}) == "Record<string, number>"
    assert type_of({}) == "unknown"


def test_python_of_schemas() -> None:
    choices = {"type": "array", "items": {"enum": ["a", "b"]}}
    assert python_type_of({"anyOf": [{"type": "number"}, {"type": "null"}]}) == "float | None"
    assert python_type_of(choices) == "list[str]", "a choice of a later version must not break a client"
    assert python_type_of(choices, strict=True) == 'list[Literal["a", "b"]]'
    assert python_type_of({"type": "object", "additionalProperties": {"type": "integer"}}) == "dict[str, int]"
    assert python_type_of({"$ref": "#/components/schemas/User"}, prefix="wire.") == "wire.User"
    assert [field_name(name) for name in ("latencyP99", "in", "userId")] == ["latency_p99", "in_", "user_id"]


def test_generated_files_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = tmp_path / "docs" / "protocol.md"
    protocol.parent.mkdir()
    protocol.write_text(f"before\n{BEGIN}\nstale table\n{END}\nafter\n", encoding="utf-8")
    root = ["--root", str(tmp_path)]
    assert writer.main(["--check", *root]) == 1
    assert capsys.readouterr().err.count("run: make docs") == 10
    assert writer.main(root) == 0
    assert writer.main(["--check", *root]) == 0
    text = protocol.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale table" not in text


def test_generated_files_are_current() -> None:
    assert writer.main(["--check", "--root", str(ROOT)]) == 0, "run: make docs"


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json"])
async def test_documents_are_served_to_anyone(path: str) -> None:
    async with api_client(FakeDeps(Settings(_env_file=None))) as client:  # type: ignore[call-arg]
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["info"]["title"].startswith("Tidings over")
