"""The rules in effect: those of the rules file (or the built-in ones) and those set through the API.

Where both have a rule for the same metric and series, the file's applies: it is under review and version control, and
a rule tried out through the API must not outlast it. Without a file, API rules replace built-in ones.

The file is TOML (`docs/alerts.md` has the format), read again when it changes. An invalid file leaves the rules as they
were. Inhibitions in the file replace the built-in ones.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from metrics_svc.alerts.muting import DEFAULT_INHIBITIONS, Inhibition
from metrics_svc.alerts.rules import DEFAULT_RULES, BadRules, Rule, RuleSet
from services.wire.alerting import AlertRule, RuleList
from services.wire.records import UNSET

# A rules file is written by hand; a larger one is some other file.
MAX_BYTES = 1_048_576

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rule, strict=True).decode
_SET_BY_SERVER = ("id", "origin", "overridden")


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    rule: list[Rule] = msgspec.field(default_factory=list)
    inhibit: list[Inhibition] | None = None


def parse(text: str) -> RuleSet:
    """Parse a TOML document.

    Raises:
        BadRules: invalid TOML, invalid rules, or rules that contradict each other; the message says where.
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


def to_rule(given: AlertRule) -> Rule:
    """Convert a rule from the API. Raises BadRules if it contradicts itself."""
    fields = msgspec.structs.asdict(given)
    for name in _SET_BY_SERVER:
        del fields[name]
    rule = Rule(**fields)
    RuleSet([rule])
    return rule


def from_rule(rule: Rule, origin: str, *, overridden: bool = False) -> AlertRule:
    return AlertRule(
        **msgspec.structs.asdict(rule), id=rule.id, origin=origin, overridden=True if overridden else UNSET
    )


class RuleStore:
    """Merges the rules of the file and of the API.

    `error` says why the newest version of the file is not in effect; empty if it is. `unreadable` are ids of stored
    API rules that are not in effect.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._base = DEFAULT_RULES
        self._from_file = False  # whether a version of the file was valid, and replaced the built-in rules
        self._stored: Mapping[str, bytes] = {}
        self._from_api: dict[str, Rule] = {}
        self.error = ""
        self.unreadable: list[str] = []
        self.rules = self._base

    def load_file(self) -> bool:
        """Read the file if it changed; return whether the rules or the error changed."""
        if self._path is None:
            return False
        before = self._base, self.error
        try:
            stat = self._path.stat()
            # With inode and size, an editor's rename within the clock's granularity is noticed.
            version = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if version == self._version:
                return False
            self._version = version
            self._base = _read(self._path, stat.st_size)
            self._from_file = True
            self.error = ""
        except (OSError, UnicodeDecodeError, BadRules) as fault:
            if isinstance(fault, OSError):
                self._version = None  # try again until it can be read
            self.error = f"{self._path}: {fault}"
        if before == (self._base, self.error):
            return False
        if self._base is not before[0]:
            self._merge()
        return True

    def load_api_rules(self, stored: Mapping[str, bytes]) -> bool:
        """Load the API's rules as stored, by id; return whether anything changed.

        Rules of another version that cannot be decoded remain in the store and become `unreadable`.
        """
        if stored == self._stored:
            return False
        self._stored = dict(stored)
        self._from_api = {}
        self.unreadable = []
        for rule_id, data in sorted(self._stored.items()):
            try:
                rule = _decode(data)
                RuleSet([rule])
            except (msgspec.DecodeError, BadRules):
                self.unreadable.append(rule_id)
            else:
                self._from_api[rule_id] = rule
        self._merge()
        return True

    def _merge(self) -> None:
        base = self._base
        kept = [rule for rule in base.rules if self._from_file or rule.id not in self._from_api]
        added = [rule for rule in self._from_api.values() if not self._from_file or rule.id not in base.by_id]
        self.rules = RuleSet([*kept, *added], base.inhibitions)

    def listed(self) -> RuleList:
        origin = "file" if self._from_file else "builtin"
        origins = [(rule, origin) for rule in self._base.rules]
        origins += [(rule, "api") for rule in self._from_api.values()]
        listed = [
            from_rule(rule, origin, overridden=self.rules.by_id.get(rule.id) is not rule)
            for rule, origin in origins
        ]
        path = str(self._path) if self._path is not None else UNSET
        return RuleList(rules=listed, error=self.error, file=path)
