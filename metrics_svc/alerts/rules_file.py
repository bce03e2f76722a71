"""Rules from a TOML file, read again when it changes. A file that is wrong leaves the rules as they were.

```toml
[[rule]]
metric = "cpu"
warning = 70
critical = 90
for_s = 5

[[rule]]
metric = "queue_depth"     # a gauge that an application pushes
source = "*"               # each source on its own
critical = 1000
no_data = "alert"
labels = { team = "billing" }
```
"""

import tomllib
from pathlib import Path

import msgspec

from metrics_svc.alerts.rules import DEFAULT_RULES, BadRules, Rule, RuleSet

# A rules file is written by hand; one larger is some other file.
MAX_BYTES = 1_048_576


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    rule: list[Rule] = msgspec.field(default_factory=list)


def parse(text: str) -> RuleSet:
    """Return the rules of a TOML document.

    Raises:
        BadRules: not TOML, not rules, or rules that contradict each other; the message says where.
    """
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except tomllib.TOMLDecodeError as fault:
        raise BadRules(f"not TOML: {fault}") from None
    except msgspec.ValidationError as fault:
        raise BadRules(str(fault)) from None
    return RuleSet(document.rule)


def _read(path: Path, size: int) -> RuleSet:
    if size > MAX_BYTES:
        raise BadRules(f"{size} bytes; a rules file has at most {MAX_BYTES}")
    return parse(path.read_text(encoding="utf-8"))


class RulesFile:
    """The rules in force. `error` says why the newest version of the file is not; empty when it is."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.rules = DEFAULT_RULES
        self.error = ""

    def poll(self) -> bool:
        """Look at the file and return whether `rules` or `error` changed. Reads only what changed."""
        if self._path is None:
            return False
        before = self.rules, self.error
        try:
            stat = self._path.stat()
            # Inode and size too: an editor that renames within the clock's granularity is noticed.
            version = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if version == self._seen:
                return False
            self._seen = version
            self.rules = _read(self._path, stat.st_size)
            self.error = ""
        except (OSError, UnicodeDecodeError, BadRules) as fault:
            if isinstance(fault, OSError):
                self._seen = None  # as soon as it can be read, it is
            self.error = f"{self._path}: {fault}"
        return before != (self.rules, self.error)
