"""Commands in the docs exist: make targets, `tidings` commands and options, files, modules, paths."""

import importlib.util
import re
from pathlib import Path
from typing import get_args, get_type_hints
from urllib.parse import urlsplit

import pytest
from typer.main import get_command

from gateway.contracts.openapi import openapi
from tests.support.docs import ROOT, name_of, pages
from tests.support.shell import Command, commands, is_placeholder
from tidings_cli.app import app

_TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
_CLI = get_command(app)
_MORE_PATHS = ("/", "/ws", "/ws/echo", "/events", "/events/metrics", "/healthz", "/readyz", "/metrics")
# Programs with unknown options; paths of our files in their arguments are checked all the same.
_OUR_FILES = re.compile(r"^(?:\./)?(?:deploy|docs|bench|tests|scripts|clients|dashboard)/[\w./-]+$")
# By `tidings secrets`, and not under version control.
_MADE = "deploy/secrets/"

COMMANDS = [command for page in pages() for command in commands(page)]


def _wrong_with_make(words: tuple[str, ...]) -> list[str]:
    targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    return [f"no target {word}" for word in targets if word not in _TARGETS and not word.startswith(".venv")]


def _wrong_with_tidings(words: tuple[str, ...]) -> list[str]:
    if len(words) == 1 or words[1] in ("--version", "--help", "-h"):
        return []
    command = _CLI.commands.get(words[1])  # type: ignore[attr-defined]
    if command is None:
        return [] if is_placeholder(words[1]) or "|" in words[1] else [f"no command {words[1]}"]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    given = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
    wrong = [f"no option {option} of {words[1]}" for option in given if option not in known]
    allowed = _choices(words[1])
    if allowed and len(words) > 2 and not words[2].startswith("-") and words[2] not in allowed:
        wrong.append(f"{words[2]} is none of {sorted(allowed)}")
    return wrong


def _choices(command: str) -> set[str]:
    """Return what the first argument of a command may be, where only certain words may."""
    function = next(
        one.callback for one in app.registered_commands if one.callback and one.callback.__name__ == command
    )
    hints = get_type_hints(function)
    first = next((hint for name, hint in hints.items() if name in ("process", "server")), None)
    return {value for part in (first, *get_args(first)) for value in get_args(part) if isinstance(value, str)}


def _wrong_with_python(words: tuple[str, ...]) -> list[str]:
    if "-m" not in words:
        return []
    module = words[words.index("-m") + 1]
    return [] if module == "http.server" or importlib.util.find_spec(module) else [f"no module {module}"]


def _wrong_with_curl(words: tuple[str, ...]) -> list[str]:
    wrong = []
    for word in words[1:]:
        url = urlsplit(word)
        if (
            url.scheme in ("http", "https")
            and url.hostname in ("127.0.0.1", "localhost")
            and url.port == 8080
        ):
            path = url.path or "/"
            if path not in _MORE_PATHS and not any(_matches(known, path) for known in openapi()["paths"]):
                wrong.append(f"no path {path}")
    return wrong


def _matches(declared: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", declared), path) is not None


def _faults(command: Command) -> list[str]:
    program = command.words[0].rpartition("/")[2]
    faults = [
        f"no file {word}"
        for word in command.words[1:]
        if _OUR_FILES.match(word) and not (ROOT / word).exists() and not f"{word}/".startswith(_MADE)
    ]
    match program:
        case "make":
            return faults + _wrong_with_make(command.words)
        case "tidings":
            return faults + _wrong_with_tidings(command.words)
        case "python" | "python3":
            return faults + _wrong_with_python(command.words)
        case "curl":
            return faults + _wrong_with_curl(command.words)
        case _:
            return faults


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_commands_on_a_page_exist(page: Path) -> None:
    faults = {str(command): wrong for command in commands(page) if (wrong := _faults(command))}
    assert faults == {}


def test_commands_are_found() -> None:
    programs = {command.words[0].rpartition("/")[2] for command in COMMANDS}
    assert {"make", "tidings", "curl"} <= programs


@pytest.mark.parametrize(
    "line",
    ["make tset", "tidings pubb lobby", "tidings check --jsn", "tidings check gatway", "curl http://127.0.0.1:8080/api/presense",
     "docker compose -f deploy/nothing.yaml up", "python -m gatewy"],
)  # fmt: skip
def test_what_does_not_exist_is_found(line: str) -> None:
    assert _faults(Command("here", tuple(line.split()))) != []
