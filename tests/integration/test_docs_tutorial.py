"""The programs of the tutorial produce the output that it shows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.docs import ROOT, blocks
from tests.support.requires import need
from tests.support.running import RunningTidings

pytestmark = pytest.mark.timeout(120)

_ADDRESS = "127.0.0.1:8080"
_PROGRAMS = [block.body for block in blocks(ROOT / "docs" / "tutorial.md") if block.info == "python"]


@pytest.fixture(scope="module")
def tidings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTidings]:
    need("nats-server")
    need("redis-server")
    with RunningTidings(tmp_path_factory.mktemp("tutorial")) as running:
        yield running.wait_ready()


class Program:
    """One of the programs, started as the tutorial says; a context manager that ends it."""

    def __init__(self, number: int, tidings: RunningTidings, folder: Path, *arguments: str) -> None:
        source = _PROGRAMS[number]
        assert _ADDRESS in source
        file = folder / f"program-{number}.py"
        file.write_text(source.replace(_ADDRESS, f"127.0.0.1:{tidings.port}"), encoding="utf-8")
        self._output = folder / f"output-{number}-{'-'.join(arguments)}.txt"
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-u", str(file), *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
                text=True,
            )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_for(self, text: str) -> None:
        """Wait until it printed `text`."""
        wait_until(lambda: text in self.output, f"{text!r} in the output")

    def press_enter(self) -> None:
        """Press Enter."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    @property
    def output(self) -> str:
        """Everything it printed so far."""
        return self._output.read_text(encoding="utf-8")


def _publish(tidings: RunningTidings, text: str) -> None:
    command = [sys.executable, "-m", "tidings_cli", "pub", "kitchen", text, "--url", tidings.url]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)


def test_there_are_two_programs() -> None:
    assert len(_PROGRAMS) == 2


def test_two_people_chat(tidings: RunningTidings, tmp_path: Path) -> None:
    with Program(0, tidings, tmp_path, "ada") as ada:
        ada.wait_for("'type': 'joined_room'")
        with Program(0, tidings, tmp_path, "bob") as bob:
            ada.wait_for("bob: bob is here")
            ada.wait_for("'user_joined'")
            bob.wait_for("I am u-")


def test_a_client_recovers(tidings: RunningTidings, tmp_path: Path) -> None:
    with Program(1, tidings, tmp_path) as program:
        program.wait_for("left at")
        _publish(tidings, "you missed this")
        _publish(tidings, "and this")
        program.press_enter()
        program.wait_for("and this")
    assert "recovered: True" in program.output
    assert program.output.index("you missed this") < program.output.index("and this")
