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

[[inhibit]]                # replaces the built-in inhibitions, together with all others in the file
source = [{ name = "metric", value = "up" }]
target = [{ name = "metric", value = "up", op = "!=" }]
equal = ["source"]
```
"""

import tomllib
from pathlib import Path

import msgspec

from metrics_svc.alerts.inhibition import DEFAULT_INHIBITIONS, Inhibition
from metrics_svc.alerts.rules import DEFAULT_RULES, BadRules, Rule, RuleSet

# A rules file is written by hand; one larger is some other file.
MAX_BYTES = 1_048_576


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    rule: list[Rule] = msgspec.field(default_factory=list)
    inhibit: list[Inhibition] | None = None


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
    inhibitions = DEFAULT_INHIBITIONS if document.inhibit is None else tuple(document.inhibit)
    for inhibition in inhibitions:
        if not inhibition.source or not inhibition.target:
            raise BadRules("an inhibition needs matchers for its `source` and for its `target`")
    return RuleSet(document.rule, inhibitions)


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
        self.loaded = False  # a version of the file was good once, so it is not the built-in rules that hold

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
            self.loaded = True
        except (OSError, UnicodeDecodeError, BadRules) as fault:
            if isinstance(fault, OSError):
                self._seen = None  # as soon as it can be read, it is
            self.error = f"{self._path}: {fault}"
        return before != (self.rules, self.error)
