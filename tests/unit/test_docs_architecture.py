"""The picture of the architecture matches the code: processes and their connections."""

import ast
import re
import xml.etree.ElementTree as ET

import pytest

from services.permissions import Role
from services.permissions.nats import subjects_of
from services.permissions.redis import ROLES as WITH_REDIS
from services.settings import Settings
from tests.support.docs import ROOT, blocks
from tests.unit.test_architecture import FORBIDDEN, SERVER_STACK, imported, modules

# How the picture calls each kind of process, and the module that runs it.
_MODULES = {
    "gateway": (Role.GATEWAY, "gateway"),
    "presence_svc": (Role.PRESENCE, "presence_svc"),
    "metrics_svc": (Role.METRICS, "metrics_svc"),
    "agent": (Role.AGENT, "metrics_svc.agent"),
}
PAGE = ROOT / "docs" / "architecture.md"
_SERVERS = {"NATS", "Redis"}
_OUTSIDE = {"browsers", "your servers"}

_NODE = re.compile(r'^\s*(?P<id>\w+)[\[(]+"(?P<label>[^"]+)"[\])]+$', re.MULTILINE)
_EDGE = re.compile(r'^\s*(?P<a>\w+) (?P<back><)?--(?: "[^"]*" --)?(?P<forth>>)? (?P<b>\w+)$', re.MULTILINE)


def _name(label: str) -> str:
    return re.split(r"[,\u00d7<+]| one", label)[0].strip()


def _diagram() -> str:
    return next(block.body for block in blocks(PAGE) if block.info == "mermaid")


NODES = {found["id"]: _name(found["label"]) for found in _NODE.finditer(_diagram())}
# (from, to), once for each direction of an arrow.
EDGES = {
    pair
    for found in _EDGE.finditer(_diagram())
    for pair in (
        *([(NODES[found["a"]], NODES[found["b"]])] if found["forth"] else []),
        *([(NODES[found["b"]], NODES[found["a"]])] if found["back"] else []),
    )
}


def _imports(package: str) -> set[str]:
    return {name.split(".")[0] for path in modules(package) for name, _ in imported(path)}


def test_the_picture_shows_every_process_and_no_other() -> None:
    assert set(NODES.values()) == set(_MODULES) | _SERVERS | _OUTSIDE
    runnable = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in FORBIDDEN
        for path in (ROOT / package).rglob("__main__.py")
    }
    # Tools that make files are no processes.
    assert runnable - {"tidings_cli", "tidings_cli.generate"} == {module for _, module in _MODULES.values()}


@pytest.mark.parametrize("name", _MODULES)
def test_processes_drawn_to_redis_may_use_it_and_do(name: str) -> None:
    role, module = _MODULES[name]
    drawn = (name, "Redis") in EDGES
    assert drawn == (role in WITH_REDIS)
    if module in FORBIDDEN:
        uses = "redis" in _imports(module) or any(
            n.startswith("services.redis") for p in modules(module) for n, _ in imported(p)
        )
        assert drawn == uses


@pytest.mark.parametrize("name", _MODULES)
def test_arrows_to_and_from_nats_are_what_each_may_say_and_hear(name: str) -> None:
    role, _ = _MODULES[name]
    subjects = subjects_of(role, Settings())
    own = [
        subject
        for subject in subjects.subscribe
        if not subject.startswith("_INBOX") and ".probe." not in subject
    ]
    assert ((name, "NATS") in EDGES) == bool(subjects.publish)
    assert (("NATS", name) in EDGES) == bool(own)


def test_clients_are_drawn_to_what_serves_them() -> None:
    serves = {
        name
        for name, (_, module) in _MODULES.items()
        if module in FORBIDDEN and SERVER_STACK & _imports(module)
    }
    assert {to for start, to in EDGES if start in _OUTSIDE} == serves == {"gateway"}


def test_no_process_is_drawn_to_another() -> None:
    assert not {(a, b) for a, b in EDGES if a in _MODULES and b in _MODULES}


def test_the_picture_of_the_readme_shows_the_same() -> None:
    root = ET.parse(ROOT / "docs" / "images" / "architecture.svg").getroot()  # noqa: S314  # our own file
    texts = [
        text.text or ""
        for text in root.iter("{http://www.w3.org/2000/svg}text")
        if text.get("class") == "name"
    ]
    assert {_name(text) for text in texts} == set(NODES.values())


def test_the_map_of_folders_names_what_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    folders = page[page.index("## Folders") :].split("```")[1]
    named: list[str] = []
    for line in folders.splitlines():
        if found := re.match(r"^(?P<indent> *)(?P<name>[\w.]+/?)(?: |$)", line):
            top = named[-1].split("/")[0] + "/" if found["indent"] else ""
            named.append(top + found["name"])
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []
    packages = {path.parent.name for package in FORBIDDEN for path in (ROOT / package).glob("*/__init__.py")}
    assert packages <= {name.rstrip("/").split("/")[-1] for name in named}


def test_the_table_of_processes_is_correct() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    assert rows == {module for _, module in _MODULES.values()}
    assert all(
        ast.get_docstring(ast.parse((ROOT / module.replace(".", "/") / "__main__.py").read_text()))
        for module in rows
    )


def _parts() -> tuple[dict[str, list[str]], set[tuple[str, str]]]:
    """Return what the picture of imports shows: the paths of each part, and its arrows."""
    picture = [block.body for block in blocks(PAGE) if block.info == "mermaid"][1]
    parts = {
        found["id"]: found["paths"].split(", ")
        for found in re.finditer(r'(?P<id>\w+)\["[^"<]*<br/>(?P<paths>[^"]+)"\]', picture)
    }
    arrows = {
        (found[1], to)
        for found in re.finditer(r"^ *(\w+) --> ([\w &]+)$", picture, re.MULTILINE)
        for to in found[2].split(" & ")
    }
    return parts, arrows


def _part_of(path: str, parts: dict[str, list[str]]) -> str:
    """Return the part whose path is the longest that a module's path begins with."""
    found = [
        (len(own), part) for part, paths in parts.items() for own in paths if f"{path}/".startswith(f"{own}/")
    ]
    assert found, f"{path} is in no part of the picture"
    return max(found)[1]


def _import_arrows(parts: dict[str, list[str]]) -> dict[str, set[str]]:
    """Return for each part the other parts that its modules import."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in FORBIDDEN
        for path in modules(package)
    }
    arrows: dict[str, set[str]] = {part: set() for part in parts}
    for path in paths.values():
        part = _part_of(path.relative_to(ROOT).as_posix(), parts)
        for name, _ in imported(path):
            if name in paths:
                arrows[part].add(_part_of(paths[name].relative_to(ROOT).as_posix(), parts))
        arrows[part].discard(part)
    return arrows


def _reachable(start: str, arrows: dict[str, set[str]], without: str = "") -> set[str]:
    found: set[str] = set()
    waiting = arrows[start] - {without}
    while waiting:
        part = waiting.pop()
        found.add(part)
        waiting |= arrows[part] - found
    return found


def test_the_picture_of_imports_is_drawn_from_the_code() -> None:
    parts, drawn = _parts()
    assert [path for paths in parts.values() for path in paths if not (ROOT / path).exists()] == []
    arrows = _import_arrows(parts)
    assert [part for part in parts if part in _reachable(part, arrows)] == [], "a cycle"
    needed = {
        (a, b) for a, others in arrows.items() for b in others if b not in _reachable(a, arrows, without=b)
    }
    assert drawn == needed, f"draw {sorted(needed - drawn)}, not {sorted(drawn - needed)}"


_STEP = re.compile(
    r"`(?P<path>(?:gateway|services|presence_svc|metrics_svc|tidings_cli)/[\w/]+\.(?:py|lua))`(?: `(?P<name>\w+)`)?"
)


def test_files_and_functions_of_the_page_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    steps = [(found["path"], found["name"]) for found in _STEP.finditer(text)]
    assert len(steps) > 40
    missing = [
        f"{path} {name or ''}"
        for path, name in steps
        if not (ROOT / path).is_file()
        or (
            name and not re.search(rf"(def|class|function) {name}\b|\b{name}\b *=", (ROOT / path).read_text())
        )
    ]
    assert missing == []
