"""`tidings up` as a separate process: its output, and the processes that it leaves behind."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.support.deadline import PATIENCE_S, wait_until
from tidings_cli.local.processes import free_port

_READY = re.compile(r"Tidings is ready: (http://\S+)")
START_S = 40.0


class RunningTidings:
    """One `tidings up`, on a free port and a data directory of its own.

    `output` grows while it runs. Leaving the context kills it, and whatever it left behind, unless it ended before.
    """

    def __init__(self, data_dir: Path, *arguments: str, port: int = 0, **environment: str) -> None:
        self.port = port or free_port()
        command = [sys.executable, "-m", "tidings_cli", "up", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self._lines: list[str] = []
        self._family: list[psutil.Process] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(self.process.stdout)

    @property
    def output(self) -> str:
        """Everything it printed so far."""
        return "".join(self._lines)

    @property
    def url(self) -> str:
        """Where the gateways answer."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, text: str, timeout_s: float = START_S) -> None:
        """Wait until it printed `text`; fail with its output if it ended without or time is up."""

        def said_or_ended() -> bool:
            return text in self.output or self.process.poll() is not None

        try:
            wait_until(said_or_ended, f"the line {text!r}", timeout_s)
        except AssertionError as late:
            raise AssertionError(f"{late}; the output was:\n{self.output}") from None
        self._reader.join(0 if self.process.poll() is None else 5)
        assert text in self.output, f"it ended without {text!r}:\n{self.output}"

    def wait_ready(self) -> Self:
        """Wait until it is ready at the given port."""
        self.wait_for("Tidings is ready")
        found = _READY.search(self.output)
        assert found is not None
        assert found[1] == self.url
        return self

    def child(self, name: str) -> psutil.Process:
        """Return the child of that name: `gateway-1`, `presence-1`, `nats-server`.

        `redis-server` may be a valkey-server, where PATH has that.
        """
        programs = ("redis-server", "valkey-server") if name == "redis-server" else (name,)
        for process in self.family():
            try:
                if process.name() in programs or process.environ().get("TIDINGS_INSTANCE") == name:
                    return process
            except (psutil.NoSuchProcess, psutil.ZombieProcess):  # ended while we looked
                continue
        raise LookupError(name)

    def family(self) -> Sequence[psutil.Process]:
        """Return its children now, and remember them."""
        now = psutil.Process(self.process.pid).children(recursive=True)
        self._family += [process for process in now if process not in self._family]
        return now

    def survivors(self) -> list[psutil.Process]:
        """Return those of its children, as far as `family` saw them, that still run."""
        return [process for process in self._family if process.is_running()]

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(5)
        return code

    def stop(self) -> int:
        """Stop it as a person does, and return the exit code: not 0 where a part had to be killed."""
        self.family()
        self.process.terminate()
        return self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.family()
            self.process.kill()
            self.process.wait()
        for process in self.survivors():
            process.kill()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
