"""The server's code obeys the glossary: one class for one name, and no retired words in names."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.docs import ROOT

PACKAGES = ("gateway", "services", "presence_svc", "metrics_svc", "tidings_cli")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
_LUA_TEXT_OR_COMMENT = re.compile(r"""'[^']*'|"[^"]*"|--.*""")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _retired(table: str) -> set[str]:
    """Return the words in the first column of one of the page's tables of retired words."""
    return {
        word
        for row in table.partition("\n\n")[0].splitlines()
        for word in re.findall(r"`(\w+)`", row.split("|")[1])
    }


RETIRED_PARTS, RETIRED_NAMES = (
    _retired(table) for table in GLOSSARY.split("| retired | use |\n|---|---|\n")[1:]
)


def _modules() -> Iterator[Path]:
    return (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every class, function and parameter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg


def lua_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every identifier: functions, locals, parameters, commands, fields of tables.

    Texts are left out: they are keys and fields in Redis, whose names are stored.
    """
    for number, line in enumerate(source.splitlines(), 1):
        for name in re.findall(r"[A-Za-z_]\w*", _LUA_TEXT_OR_COMMENT.sub(" ", line)):
            yield number, name


def _is_retired(name: str) -> bool:
    if name.startswith("__") and name.endswith("__"):
        return False  # Python's own, such as `__enter__`
    parts = {part.lower() for part in _PARTS.findall(name)}
    return bool(parts & RETIRED_PARTS) or name.strip("_") in RETIRED_NAMES


def test_the_page_names_retired_words() -> None:
    assert {"stay", "doorway", "whole", "place"} <= RETIRED_PARTS
    assert sorted(RETIRED_NAMES) == ["begin", "enter", "take"]


def test_retired_words_are_recognised_as_parts_of_names() -> None:
    assert all(
        _is_retired(name) for name in ("_Doorway", "is_whole", "IPPlace", "take", "_enter", "HTTPGuest")
    )
    assert not any(
        _is_retired(name) for name in ("placement", "take_lease", "HTTPServer", "wholesale", "__enter__")
    )


def test_names_of_lua_are_found_without_texts_and_comments() -> None:
    line = "local function take(guest) redis.call('HSET', keys.told, 'site', house) end  -- a stranger"
    assert [name for _, name in lua_names(line) if _is_retired(name)] == ["take", "guest", "told", "house"]


def test_no_name_in_lua_has_a_retired_word() -> None:
    scripts = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.lua"))]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in scripts
        for line, name in ((0, path.stem), *lua_names(path.read_text(encoding="utf-8")))
        if _is_retired(name)
    ]
    assert len(scripts) > 15
    assert wrong == []


def test_no_class_name_occurs_twice() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_name_has_a_retired_word() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in _modules()
        for line, name in (
            (0, path.stem),
            *((0, folder) for folder in path.relative_to(ROOT).parts[:-1]),
            *names_in(ast.parse(path.read_text(encoding="utf-8"))),
        )
        if _is_retired(name)
    ]
    assert wrong == []
