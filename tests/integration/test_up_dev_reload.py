"""A process that restarts when its files change, as in a development container."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.deadline import PATIENCE_S, wait_until
from tidings_cli.local.dev_reload import PACKAGES, copy_packages

# Prints what it is, and then waits; on SIGTERM it says so.
PROGRAM = """
import signal, sys, time
from toy.word import WORD
signal.signal(signal.SIGTERM, lambda *_: (print("stopped", WORD, flush=True), sys.exit(3)))
print("runs", WORD, flush=True)
while True:
    time.sleep(0.1)
"""


def package(folder: Path, word: str) -> None:
    (folder / "toy").mkdir(parents=True)
    (folder / "toy" / "__init__.py").touch()
    (folder / "toy" / "__main__.py").write_text(PROGRAM)
    (folder / "toy" / "word.py").write_text(f"WORD = {word!r}\n")


class Running:
    def __init__(self, folder: Path, output: Path) -> None:
        self._output = output
        command = f"[{sys.executable!r}, '-P', '-m', 'toy']"
        program = (
            f"import sys; from pathlib import Path; from tidings_cli.local.dev_reload import run; "
            f"sys.exit(run(Path({str(folder)!r}), {command}))"
        )
        with output.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log)

    def said(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self._output.read_text().count(text) >= times, f"{text!r} in the output")


@contextmanager
def running(folder: Path, output: Path) -> Iterator[Running]:
    live = Running(folder, output)
    try:
        yield live
    finally:
        live.process.terminate()  # not killed: then what it runs would live on
        live.process.wait(PATIENCE_S)


def test_a_change_restarts_it_and_a_stop_is_passed_on(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    package(folder, "first")
    with running(folder, tmp_path / "output") as live:
        live.said("runs first")
        (folder / "toy" / "word.py").write_text("WORD = 'second'\n")
        live.said("stopped first")
        live.said("runs second")
        live.process.terminate()
        assert live.process.wait(PATIENCE_S) == 3
        live.said("stopped second")


def test_a_mistake_waits_for_its_correction(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    package(folder, "right")
    with running(folder, tmp_path / "output") as live:
        live.said("runs right")
        (folder / "toy" / "word.py").write_text("WORD = \n")
        live.said("ended with code 1; waiting for a change")
        assert live.process.poll() is None
        (folder / "toy" / "word.py").write_text("WORD = 'corrected'\n")
        live.said("runs corrected")


def test_packages_are_copied_once_and_run_from_there(tmp_path: Path) -> None:
    copy_packages(tmp_path, PACKAGES)
    assert {path.name for path in tmp_path.iterdir()} == set(PACKAGES)
    assert not list(tmp_path.rglob("__pycache__"))
    (tmp_path / "services" / "__init__.py").write_text('"""Changed."""\n\n__version__ = "from the folder"\n')
    copy_packages(tmp_path, PACKAGES)  # keeps what is there
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tidings_cli", "--version"],
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "tidings from the folder\n", done.stderr
    assert sorted(tmp_path.rglob("*")) == before
