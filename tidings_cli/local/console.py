"""What `tidings up` shows: progress, what the children say, and what went wrong.

A spinner and colours on a terminal; plain lines elsewhere.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.text import Text

_NAME_WIDTH = 12
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta")


class Screen:
    """Prints whole lines to one stream, standard output unless given."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True, markup=False)
        self._colour_of: dict[str, str] = {}
        self._begun = time.monotonic()

    @property
    def on_terminal(self) -> bool:
        """Whether a person watches."""
        return self._console.is_terminal

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show that something is under way."""
        if self.on_terminal:
            with self._console.status(what):
                yield
        else:
            self.say(what)
            yield

    def restore_terminal(self) -> None:
        """Undo what a spinner did to the terminal, before an abrupt end."""
        self._console.show_cursor(True)

    def say(self, line: str, style: str = "") -> None:
        """Print a line of the supervisor."""
        self._console.print(Text(line, style))

    def done(self, what: str, since: float | None = None) -> None:
        """Print that a part is up, and how long it took: from the beginning, or from `since` (monotonic)."""
        took_s = time.monotonic() - (self._begun if since is None else since)
        line = Text.assemble(("  ✓ ", "green"), what, (f"  {took_s:.1f} s", "dim"))
        self._console.print(line)

    def trouble(self, what: str, tail: str = "") -> None:
        """Print what went wrong, and what the culprit said last."""
        self._console.print(Text.assemble(("  ! ", "bold red"), what))
        for line in tail.splitlines():
            self._console.print(Text(f"      {line}", "dim"))

    def child_line(self, name: str, line: str) -> None:
        """Print a line of a child, prefixed by its name."""
        colour = self._colour_of.setdefault(name, _COLOURS[len(self._colour_of) % len(_COLOURS)])
        self._console.print(Text.assemble((f"{name:<{_NAME_WIDTH}}│ ", colour), line))
