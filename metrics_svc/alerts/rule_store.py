"""The rules in force: those of the file (or the built-in ones) and those given through the API.

Both hold together. Where the file and the API have a rule that watches the same, the file's holds: it is under
review and version control, and a rule that was tried out through the API must not outlive what was decided since.
Without a file, rules of the API replace built-in ones that watch the same.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from metrics_svc.alerts.rules import BadRules, Rule, RuleSet
from metrics_svc.alerts.rules_file import RulesFile
from services.wire.alerting import AlertRule, RuleList
from services.wire.records import UNSET

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rule, strict=True).decode
_SAID_BY_THE_SERVER = ("id", "origin", "overridden")


def to_rule(asked: AlertRule) -> Rule:
    """Return a rule as the API was given it.

    Raises:
        BadRules: it contradicts itself.
    """
    fields = msgspec.structs.asdict(asked)
    for name in _SAID_BY_THE_SERVER:
        del fields[name]
    rule = Rule(**fields)
    RuleSet([rule])
    return rule


def from_rule(rule: Rule, origin: str, *, overridden: bool = False) -> AlertRule:
    """Return a rule as the API shows it."""
    return AlertRule(
        **msgspec.structs.asdict(rule), id=rule.id, origin=origin, overridden=True if overridden else UNSET
    )


def encode(rule: Rule) -> bytes:
    """Return the rule as the store keeps it."""
    return _encode(rule)


class RuleStore:
    """Merges both. `poll` looks at the file, `take` at what the store has."""

    def __init__(self, path: Path | None) -> None:
        self._file = RulesFile(path)
        self._path = path
        self._stored: Mapping[str, bytes] = {}
        self._given: dict[str, Rule] = {}
        self.unreadable: list[str] = []  # ids of rules in the store that do not hold
        self.rules = self._file.rules

    @property
    def error(self) -> str:
        """Why the newest version of the file does not hold; empty when it does."""
        return self._file.error

    def poll(self) -> bool:
        """Look at the file; return whether the rules or the error changed."""
        if not self._file.poll():
            return False
        self._merge()
        return True

    def take(self, stored: Mapping[str, bytes]) -> bool:
        """Take over the API's rules as stored, by id; return whether anything changed.

        What cannot be read (written by another version) stays in the store, does not hold, and is `unreadable`.
        """
        if stored == self._stored:
            return False
        self._stored = dict(stored)
        self._given = {}
        self.unreadable = []
        for id, data in sorted(self._stored.items()):
            try:
                rule = _decode(data)
                RuleSet([rule])
            except (msgspec.DecodeError, BadRules):
                self.unreadable.append(id)
            else:
                self._given[id] = rule
        self._merge()
        return True

    def _merge(self) -> None:
        base = self._file.rules
        of_file = self._path is not None and self._file.loaded
        kept = [rule for rule in base.rules if of_file or rule.id not in self._given]
        added = [rule for rule in self._given.values() if not of_file or rule.id not in base.by_id]
        self.rules = RuleSet([*kept, *added], base.inhibitions)

    def listed(self) -> RuleList:
        """Return all rules and where each comes from."""
        origin = "file" if self._path is not None and self._file.loaded else "builtin"
        shown = [
            from_rule(rule, origin, overridden=self.rules.by_id.get(rule.id) is not rule)
            for rule in self._file.rules.rules
        ]
        shown += [
            from_rule(rule, "api", overridden=self.rules.by_id.get(id) is not rule)
            for id, rule in self._given.items()
        ]
        path = str(self._path) if self._path is not None else UNSET
        return RuleList(rules=shown, error=self.error, file=path)
