"""What is shipped: what it imports, how its options are typed, that nothing is missing from the wheel."""

import ast
import dataclasses
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tidings_client
from tidings_client.options import Options, OptionsDict

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "tidings_client"
ALLOWED = {"httpx", "msgspec", "websockets", "tidings_client"}


def test_it_stands_alone() -> None:
    wrong = []
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names}
            wrong += [f"{path.name}: {root}" for root in roots - ALLOWED - set(sys.stdlib_module_names)]
    assert wrong == []


def test_options_have_one_list_of_names_and_types() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(Options)}
    assert fields == OptionsDict.__annotations__


def test_everything_exported_exists() -> None:
    assert sorted(tidings_client.__all__) == tidings_client.__all__
    for name in tidings_client.__all__:
        assert getattr(tidings_client, name) is not None


def _snippets() -> list[str]:
    pages = (PROJECT / "README.md", PROJECT.parents[1] / "docs" / "clients-python.md")
    blocks = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [block for page in pages for block in blocks.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("snippet", _snippets())
def test_what_the_docs_show_exists(snippet: str) -> None:
    tree = compile(snippet, "docs", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    client = tidings_client.TidingsClient("http://host")
    known = {"client": client, "room": client.room("lobby")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "tidings_client":
            assert {each.name for each in node.names} <= set(tidings_client.__all__)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            assert hasattr(known[node.value.id], node.attr), ast.unparse(node)


def test_the_wheel_has_all_modules_and_a_type_marker(tmp_path: Path) -> None:
    # The build tools that made this environment, without a network.
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=50)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(path.relative_to(PROJECT)) for path in FOLDER.rglob("*.py")}
    assert modules | {"tidings_client/py.typed"} <= names
