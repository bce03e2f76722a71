"""Real gateways, NATS and Redis: `tidings up` on a free port, in a separate process."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[4]


class Fleet:
    """A deployment on this machine, maybe with an application. `order("kill", "gateway-1")`: see tests/support/fleet.py."""

    def __init__(self, *, application: bool = False, **settings: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tidings-python-")
        empty = Path(self._folder.name) / "tidings.toml"
        empty.touch()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        command = [sys.executable, "-m", "tests.support.fleet", self._folder.name]
        self._process = subprocess.Popen(
            [*command, "application"] if application else command,
            cwd=ROOT,
            env={**inherited, "TIDINGS_CONFIG": str(empty), **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.url = self._answer()["url"]
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def order(self, order: str, name: str) -> None:
        """Do something to one process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order} {name}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the deployment ended"
        said: dict[str, str] = json.loads(line)
        assert "error" not in said, said
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._folder.cleanup()
