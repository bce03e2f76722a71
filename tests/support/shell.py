"""Commands in the docs: taken out of shell blocks and out of code within sentences, split into words."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.docs import blocks, name_of, prose

_SHELLS = {"sh", "bash", "console", "shell"}
_INLINE = re.compile(r"`((?:tidings|make|\.venv/bin/\w+) [^`]+)`")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_SEPARATORS = {"|", "||", "&&", ";", "&", "(", ")"}
_PLACEHOLDER = re.compile(r"^[A-Z][A-Z_/.:-]*$|[…]|^\.\.\.$")


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `words` without assignments before it and redirections after it."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {' '.join(self.words)}"


def commands(page: Path) -> Iterator[Command]:
    """Yield every command of a page's shell blocks, and those named in its sentences."""
    for block in blocks(page):
        kind = (block.info.split() or [""])[0]
        if kind in _SHELLS:
            for line in _lines(block.body, prompted=kind == "console"):
                yield from _split(str(block), line)
    for found in _INLINE.finditer(prose(page)):
        yield from _split(name_of(page), found[1])


def _lines(body: str, *, prompted: bool) -> Iterator[str]:
    """Yield whole lines: continued ones joined; of a console only what was typed."""
    for line in re.sub(r"\\\n\s*", " ", body).splitlines():
        if not prompted:
            yield line
        elif line.startswith("$ "):
            yield line[2:]


def _split(where: str, line: str) -> Iterator[Command]:
    for inner in _SUBSTITUTION.findall(line):
        yield from _split(where, inner)
    lexer = shlex.shlex(_SUBSTITUTION.sub("SUBSTITUTED", line), posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in _SEPARATORS:
            if words:
                yield Command(where, tuple(words))
            words = []
        elif words or not _ASSIGNMENT.match(word):
            words.append(word)


def is_placeholder(word: str) -> bool:
    """Whether a word stands for something that the reader puts there."""
    return bool(_PLACEHOLDER.search(word))
