"""Code in the docs is code: settings load, Python compiles, JavaScript and YAML parse."""

import ast
import importlib.util
import subprocess
import tomllib
from pathlib import Path

import pytest

from metrics_svc.alerts.rule_store import RuleStore
from services.settings import Settings
from tests.support.docs import ROOT, Block, blocks, pages
from tests.support.requires import missing

_NO_NODE = 69
_ESBUILD = ROOT / "clients" / "js" / "node_modules" / ".bin" / "esbuild"
_LOADERS = {"js": "js", "javascript": "js", "jsx": "jsx", "ts": "ts", "typescript": "ts", "tsx": "tsx"}
_RULES = {"rule", "inhibit", "window", "silence"}


def _of(*kinds: str) -> list[Block]:
    return [block for page in pages() for block in blocks(page) if (block.info.split() or [""])[0] in kinds]


# What a block is written in; others are plain text, or tested elsewhere (JSON, diagrams, shell).
_KNOWN = {
    "",
    "sh",
    "console",
    "json",
    "mermaid",
    "http",
    "text",
    "toml",
    "yaml",
    "python",
    "nginx",
    "haproxy",
    "caddyfile",
    "promql",
    "ini",
    "diff",
    "starlark",
    "conf",
    *_LOADERS,
}


def test_every_block_has_a_known_language() -> None:
    unknown = [
        f"{block}: {block.info}"
        for page in pages()
        for block in blocks(page)
        if (block.info.split() or [""])[0] not in _KNOWN
    ]
    assert unknown == []


@pytest.mark.parametrize("block", _of("toml"), ids=str)
def test_toml_is_a_configuration_or_rules(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "example.toml"
    file.write_text(block.body, encoding="utf-8")
    if set(tomllib.loads(block.body)) & _RULES:
        rules = RuleStore(file)
        assert rules.load_file(), rules.error
        assert rules.error == ""
    else:
        monkeypatch.setenv("TIDINGS_CONFIG", str(file))
        Settings()


def test_yaml_parses() -> None:
    if importlib.util.find_spec("yaml") is None:
        missing("PyYAML", "`make site` installs it")
    import yaml

    faults = {}
    for block in _of("yaml", "yml"):
        try:
            list(yaml.safe_load_all(block.body))
        except yaml.YAMLError as fault:
            faults[str(block)] = str(fault)
    assert faults == {}


@pytest.mark.parametrize("block", _of("python", "py"), ids=str)
def test_python_compiles(block: Block) -> None:
    # Pieces of programs are shown without the coroutine around them.
    compile(block.body, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_javascript_and_typescript_parse(tmp_path: Path) -> None:
    if not _ESBUILD.exists():
        missing("esbuild", "`make test-js` installs it")
    faults = {}
    for block in _of(*_LOADERS):
        command = ["sh", "scripts/node.sh", str(_ESBUILD), f"--loader={_LOADERS[block.info.split()[0]]}"]
        done = subprocess.run(command, cwd=ROOT, input=block.body, capture_output=True, text=True, timeout=30)
        if done.returncode == _NO_NODE:
            missing("Node.js >= 20")
        if done.returncode:
            faults[str(block)] = done.stderr
    assert faults == {}
