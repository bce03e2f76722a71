"""Uses of undocumented internals of libraries: one table, each line of which is still true.

Private attributes are found by reading the sources: those of other objects, and those that a class of ours uses or overrides
in a base class of a library. uvicorn's protocols and websockets' sans-IO core document little of what a subclass needs, so of
them every attribute counts. What is internal and cannot be told from ordinary use is listed by hand in `BESIDES`.

Where this fails after an update, read what became of the attribute before the table is changed.
"""

import ast
import asyncio
import importlib
import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.docs import ROOT

PACKAGES = ("gateway", "services", "presence_svc", "metrics_svc")

# Distribution: the package that it installs.
LIBRARIES = {
    "uvicorn": "uvicorn",
    "nats-py": "nats",
    "websockets": "websockets",
    "redis": "redis",
    "pydantic-settings": "pydantic_settings",
    "httptools": "httptools",
}
# Of these every attribute of a base class counts, not only private ones.
UNDOCUMENTED = ("uvicorn", "websockets")

# By class of ours: what it uses of its base classes in a library.
INHERITED = {
    "gateway/http/protocol.py:LimitedHttpProtocol": {
        "_should_upgrade", "_start_asgi_task", "_unset_keepalive_if_required", "connections", "cycle",
        "headers", "loop", "on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete", "parser",
        "pipeline", "scope", "timeout_keep_alive_task", "transport", "url",
    },
    "gateway/ws/frames.py:FallbackParser": {
        "current_size", "extensions", "fail", "reader", "receive_data", "recv_frame", "state",
    },
    "gateway/ws/negotiation.py:SharedDeflate": {"process_request_params"},
    "services/bus/nats_client.py:AbortingTransport": {"_io_writer"},
    "services/bus/nats_client.py:LeanClient": {
        "_connect_command", "_connect_to_server", "_current_server", "_flush_queue", "_flusher_task", "_max_payload", "_pending",
        "_pending_data_size", "_pings_outstanding", "_pongs", "_pongs_received", "_process_msg", "_process_pong", "_reading_task",
        "_reconnection_task", "_server_info", "_server_pool", "_sid", "_status", "_subs", "_transport",
    },
}  # fmt: skip

# Private names of modules, and private attributes of objects that are not ours, by file.
OF_OTHERS = {
    "gateway/http/protocol.py": {"uvicorn._types:ASGI3Application"},
    "services/bus/nats_client.py": {"_io_writer"},  # of an AbortingTransport, which is in INHERITED
}

# What no reading of the sources finds, by file.
_CYCLE = "uvicorn.protocols.http.httptools_impl:RequestResponseCycle"
_SUBSCRIPTION = "nats.aio.subscription:Subscription"  # ours stands in its place in the client's table
BESIDES = {
    "gateway/http/protocol.py": {
        f"{_CYCLE}.{name}"
        for name in ("disconnected", "keep_alive", "message_event", "response_complete", "response_started")
    },
    "gateway/ws/negotiation.py": {
        "websockets.extensions.permessage_deflate:PerMessageDeflate.local_max_window_bits"
    },
    "gateway/ws/protocol.py": {
        "websockets.protocol:Protocol.eof_sent"
    },
    "gateway/ws/frames.py": {
        "websockets.protocol:Protocol.close_rcvd_then_sent", "websockets.speedups:apply_mask",
        "websockets.streams:StreamReader.buffer", "websockets.utils:apply_mask",
    },
    "services/bus/nats_client.py": {
        "nats.aio.client:PING_PROTO",
        "nats.aio.client:Client.options",
        *(
            f"{_SUBSCRIPTION}.{name}"
            for name in (
                "_id", "_max_msgs", "_message_iterator", "_pending_next_msgs_calls", "_queue", "_received", "_subject",
                "_wait_for_msgs_task",
            )
        ),
    },
    "services/redis_client.py": {
        "redis.asyncio.sentinel:SentinelConnectionPool.sentinel_manager", "redis.asyncio.sentinel:Sentinel.sentinels"
    },
    "tidings_cli/verify/client.py": {
        "websockets.asyncio.connection:Connection.protocol", "websockets.asyncio.connection:Connection.send_data"
    },
}  # fmt: skip


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def members(base: type[Any]) -> set[str]:
    """Return what instances of a class have: what is in it, and what its methods set."""
    source = ast.parse(textwrap.dedent(inspect.getsource(base)))
    return set(vars(base)) | {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def foreign_members(cls: type[Any]) -> set[str]:
    """Return the names that a class has from libraries and that count."""
    found: set[str] = set()
    for base in cls.__mro__:
        for library, package in LIBRARIES.items():
            if base.__module__.partition(".")[0] == package:
                counts = "" if library in UNDOCUMENTED else "_"
                found |= {
                    name for name in members(base) if name.startswith(counts) and not name.startswith("__")
                }
    # What asyncio asks of every protocol is no library's insides.
    return found - set(dir(asyncio.Protocol))


def names_used(node: ast.ClassDef) -> set[str]:
    """Return what a class uses of itself: `self.x`, `super().x`, and what it defines."""
    used = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    for each in ast.walk(node):
        if not isinstance(each, ast.Attribute):
            continue
        value = each.value
        is_super = (
            isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
        )
        if is_super or (isinstance(value, ast.Name) and value.id == "self"):
            used.add(each.attr)
    return {name for name in used if not name.startswith("__")}


def inherited() -> dict[str, set[str]]:
    """Return, by class of ours with a base class in a library, what it uses of that."""
    found = {}
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if not any(
            re.search(rf"^\s*(from|import) {package}\b", text, re.MULTILINE) for package in LIBRARIES.values()
        ):
            continue
        place = path.relative_to(ROOT)
        module = importlib.import_module(".".join(place.with_suffix("").parts).removesuffix(".__init__"))
        for node in _tree(path).body:
            if not isinstance(node, ast.ClassDef):
                continue
            if used := names_used(node) & foreign_members(getattr(module, node.name)):
                found[f"{place}:{node.name}"] = used
    return found


def own_names() -> set[str]:
    """Return every private name that the product defines itself."""
    found: set[str] = set()
    for path in sources():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id == "self":
                    found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)  # __slots__
    return found


def of_others() -> dict[str, set[str]]:
    """Return, by file, private attributes of objects that are not ours, and what it imports of private modules."""
    own = own_names()
    found: dict[str, set[str]] = {}
    for path in sources():
        used = found.setdefault(str(path.relative_to(ROOT)), set())
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                value = node.value
                standard = isinstance(value, ast.Name) and value.id in sys.stdlib_module_names
                if (
                    node.attr not in own
                    and not standard
                    and ast.unparse(value) not in ("self", "cls", "super()")
                ):
                    used.add(node.attr)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                parts = node.module.split(".")
                if parts[0] not in (*PACKAGES, *sys.stdlib_module_names):
                    names = [alias.name for alias in node.names]
                    used |= {
                        f"{node.module}:{name}" for name in names if any(map(is_private, [*parts, name]))
                    }
    return {file: used for file, used in found.items() if used}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def exists(place: str) -> bool:
    """Whether `module:Class.attribute` or `module:name` is there in what is installed."""
    name, _, rest = place.partition(":")
    module = importlib.import_module(name)
    owner, _, attribute = rest.partition(".")
    if not attribute:
        return hasattr(module, owner)
    return any(attribute in members(base) for base in getattr(module, owner).__mro__[:-1])


def test_what_our_classes_use_of_their_base_classes_is_listed_and_there() -> None:
    assert inherited() == INHERITED


def test_no_other_private_attribute_is_used() -> None:
    assert of_others() == OF_OTHERS


def test_what_no_reading_finds_is_used_and_there() -> None:
    for file, places in [*OF_OTHERS.items(), *BESIDES.items()]:
        text = (ROOT / file).read_text(encoding="utf-8")
        for place in places:
            assert ":" not in place or exists(place), place
            assert re.search(rf"\b{re.split('[.:]', place)[-1]}\b", text), f"{file} uses no {place}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_the_series_that_was_tested_may_be_installed(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = [each for each in map(Requirement, project["dependencies"]) if each.name == library]
    tested = version(library)
    major, minor = map(int, tested.split(".")[:2])
    assert wanted.specifier.contains(tested)
    for other in (
        f"{major}.{minor + 1}",
        f"{major}.{minor + 1}.0",
        f"{major + 1}.0",
        f"{major}.{minor - 1}.99",
    ):
        assert not wanted.specifier.contains(other), f"{library} {other} was not tested"
