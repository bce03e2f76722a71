"""Imports run one way: tidings_cli → gateway, presence_svc, metrics_svc → services. Never sideways, never back, never the tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"gateway", "presence_svc", "metrics_svc", "tidings_cli"}
SERVER_STACK = {"starlette", "uvicorn", "websockets"}

# For each package: what no module in it may import.
FORBIDDEN = {
    "services": SERVICES,
    "gateway": (SERVICES - {"gateway"}) | {"redis"},
    "presence_svc": (SERVICES - {"presence_svc"}) | SERVER_STACK,
    "metrics_svc": (SERVICES - {"metrics_svc"}) | SERVER_STACK,
    "tidings_cli": {"presence_svc", "metrics_svc"},
}

# Parts of `services` that every process loads: none may bring in what one of them must not have.
SHARED_BY_ALL = ("settings", "lifecycle", "health", "telemetry", "tasks", "logs", "bus", "wire")


def modules(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the full name and line of everything a module imports, also inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*parents, *([node.module] if node.module else [])))
            yield base, node.lineno
            for name in node.names:
                yield f"{base}.{name.name}", node.lineno


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imported(path)
        if name.split(".")[0] in FORBIDDEN[package] | {"tests"}
    ]
    assert wrong == []


def test_the_shared_parts_bring_no_server_and_no_store() -> None:
    heavy = SERVER_STACK | {"redis", "typer", "rich"}
    wrong = []
    for part in SHARED_BY_ALL:
        path = ROOT / "services" / f"{part}.py"
        for module in [path] if path.is_file() else (ROOT / "services" / part).rglob("*.py"):
            for name, line in imported(module):
                if name.split(".")[0] in heavy:
                    wrong.append(f"{module.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_every_package_has_a_docstring_about_its_contents(package: str) -> None:
    undocumented = [
        str(path.parent.relative_to(ROOT))
        for path in (ROOT / package).rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert undocumented == []


def module_graph() -> dict[str, set[str]]:
    """Return, by module of the server, the modules that it imports, also for types alone."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in FORBIDDEN
        for path in modules(package)
    }
    graph = {}
    for module, path in paths.items():
        names = [name for name, _ in imported(path)]
        found = {name for name in names if name in paths}
        # `from package import module` imports the module; the package itself only where it defines the name.
        own = {name.rpartition(".")[0] for name in names if name not in paths}
        parents = {name.rpartition(".")[0] for name in found}
        graph[module] = {name for name in found if name in own or name not in parents} - {module}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - found:
            found.add(module)
            waiting.append(module)
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = module_graph()
    assert sorted(module for module in graph if module in reachable(graph, module)) == []


# Modules under 60 lines, and why they stand alone.
SHORT = {
    "gateway/channels/channel_names.py": "checked without loading the channels",
    "gateway/delivery/fd_table.py": "one decision of its own (ADR 0008)",
    "gateway/ws/tcp.py": "the only module that knows a structure of the kernel",
    "services/backoff.py": "imported by every retry loop",
    "services/bus/connect.py": "pure",
    "services/bus/stats.py": "read without loading the client",
    "services/clock.py": "imported by every part",
    "services/settings_sources.py": "where settings come from, beside what they are",
    "tidings_cli/local/die_with_parent.py": "runs as a script",
}


def test_modules_have_60_to_400_lines() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for package in FORBIDDEN
        for path in modules(package)
        if not path.name.startswith("__")
    }
    assert {name: count for name, count in lines.items() if count > 400} == {}
    assert {name for name, count in lines.items() if count < 60} == SHORT.keys()
