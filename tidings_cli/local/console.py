"""Output of `tidings up`: progress, the children's lines, faults. Spinner and colours on a terminal, else plain lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import rich.console
from rich.text import Text

_NAME_WIDTH = 12
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta")


class Console:
    """Prints lines to one stream, by default to standard output."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = rich.console.Console(
            file=stream or sys.stdout, highlight=False, soft_wrap=True, markup=False
        )
        self._colour_of: dict[str, str] = {}
        self._started = time.monotonic()

    @property
    def on_terminal(self) -> bool:
        return self._console.is_terminal

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        if self.on_terminal:
            with self._console.status(what):
                yield
        else:
            self.say(what)
            yield

    def restore_terminal(self) -> None:
        """Restore the cursor that a spinner hides, before an abrupt end."""
        self._console.show_cursor(True)

    def say(self, line: str, style: str = "") -> None:
        """Print a line of the supervisor."""
        self._console.print(Text(line, style))

    def done(self, what: str, since: float | None = None) -> None:
        """Print that a part is up, and the time it took since the start or since `since` (monotonic)."""
        took_s = time.monotonic() - (self._started if since is None else since)
        line = Text.assemble(("  ✓ ", "green"), what, (f"  {took_s:.1f} s", "dim"))
        self._console.print(line)

    def trouble(self, what: str, tail: str = "") -> None:
        """Print a fault, and the last output of the process that caused it."""
        self._console.print(Text.assemble(("  ! ", "bold red"), what))
        for line in tail.splitlines():
            self._console.print(Text(f"      {line}", "dim"))

    def child_line(self, name: str, line: str) -> None:
        colour = self._colour_of.setdefault(name, _COLOURS[len(self._colour_of) % len(_COLOURS)])
        self._console.print(Text.assemble((f"{name:<{_NAME_WIDTH}}│ ", colour), line))
