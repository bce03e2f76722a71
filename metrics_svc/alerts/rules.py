"""What a rule says, and the rules that hold when there is no rules file."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Literal

import msgspec

from metrics_svc.aggregation.rows import QUANTILE_SUFFIXES
from metrics_svc.alerts.inhibition import DEFAULT_INHIBITIONS, Inhibition
from services.wire.names import METRIC_NAME
from services.wire.records import Severity

FLEET = ""
EVERY_SOURCE = "*"
MAX_TEXT_CHARS = 256
MAX_LABELS = 32
# Without a clear threshold of its own an alert ends 5 % on the good side of its threshold.
DEFAULT_CLEAR_MARGIN = 0.05

_UNITS = {
    "cpu": " %",
    "memory": " %",
    "disk": " %",
    "latencyP50": " ms",
    "latencyP95": " ms",
    "latencyP99": " ms",
    "requests": "/s",
    "errors": "/s",
    "network_in": " B/s",
    "network_out": " B/s",
}


def alert_id(metric: str, source: str) -> str:
    """Return the id of the alert about a metric of a source (empty: the fleet).

    No two have the same: there is no `@` in the name of a metric.
    """
    return f"{metric}@{source}-alert" if source else f"{metric}-alert"


class BadRules(ValueError):
    """Rules that cannot be meant; the message says which and why."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one metric is worth an alert.

    Args:
        metric: the metric's name in a record (`cpu`, `latencyP99`), in a report's gauges and counters, a histogram's
            (`NAME.p95`), or `up`.
        source: empty for the fleet, `*` for each source on its own, else one source.
        match: only label sets of applications that have these labels (`*`: any value), each on its own.
        aggregate: how the fleet's value comes from those of its sources, where the record does not have it.
        op: the value alerts when it is `>=` (or `<=`) its threshold.
        for_s: seconds the value must stay over a threshold before the alert fires.
        clear_for_s: seconds the value must stay past the clear threshold before the alert ends.
        no_data: what a firing alert does when its metric stays away for `no_data_for_s`: `keep` on firing,
            `resolve`, or `alert` (also when it was not firing).
        forget_s: a source (of `*`) without data for so long is gone for good, and so is its alert.
        min_count: for latencies and histograms: a second with fewer measured values says nothing, like one
            without data.
        limit: most alerts of this rule at a time, pending or firing; more are counted and logged, and do not fire.
        labels: what alerts carry and silences can match, besides those of the source.
    """

    metric: str
    source: str = FLEET
    match: dict[str, str] = msgspec.field(default_factory=dict)
    aggregate: Literal["sum", "mean", "min", "max"] = "sum"
    warning: float | None = None
    critical: float | None = None
    op: Literal[">=", "<="] = ">="
    for_s: float = 0.0
    clear_for_s: float = 3.0
    warning_clear: float | None = None
    critical_clear: float | None = None
    no_data: Literal["keep", "resolve", "alert"] = "keep"
    no_data_for_s: float = 10.0
    forget_s: float = 86_400.0
    min_count: int = 0
    limit: int = 1000
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def id(self) -> str:
        """What names the rule: what it watches, for no two rules watch the same."""
        scope = f"{self.metric}@{self.source}" if self.source else self.metric
        match = ",".join(f"{name}={value}" for name, value in sorted(self.match.items()))
        return f"{scope}{{{match}}}" if match else scope

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether a label set has the labels this rule asks for."""
        return all(name in labels and value in ("*", labels[name]) for name, value in self.match.items())

    def threshold(self, severity: Severity) -> float | None:
        """Return the threshold of a severity, None when the rule has none."""
        return self.warning if severity == "warning" else self.critical

    def clear_threshold(self, severity: Severity) -> float | None:
        """Return the value past which an alert of this severity ends."""
        threshold = self.threshold(severity)
        if threshold is None:
            return None
        own = self.warning_clear if severity == "warning" else self.critical_clear
        if own is not None:
            return own
        margin = abs(threshold) * DEFAULT_CLEAR_MARGIN
        return threshold - margin if self.op == ">=" else threshold + margin

    def is_over(self, value: float, severity: Severity) -> bool:
        """Say whether the value calls for this severity."""
        threshold = self.threshold(severity)
        if threshold is None:
            return False
        return value >= threshold if self.op == ">=" else value <= threshold

    def is_clear(self, value: float, severity: Severity) -> bool:
        """Say whether the value is past this severity's clear threshold; without a threshold it is."""
        clear = self.clear_threshold(severity)
        if clear is None:
            return True
        return value < clear if self.op == ">=" else value > clear

    @property
    def least_severity(self) -> Severity:
        """The mildest severity this rule has."""
        return "critical" if self.warning is None else "warning"

    def alert_id(self, source: str) -> str:
        """Return the id of this rule's alert for a source (empty: the fleet)."""
        return alert_id(self.metric, source)

    def describe(self, value: float, source: str) -> str:
        """Return the value in words: `cpu is 93.1 %`."""
        whose = f"{self.metric} of {source}" if source else self.metric
        return f"{whose} is {value:.4g}{_UNITS.get(self.metric, '')}"


class RuleSet:
    """Rules by what they watch. A rule for a named source takes precedence over one for every source."""

    def __init__(
        self, rules: Iterable[Rule], inhibitions: tuple[Inhibition, ...] = DEFAULT_INHIBITIONS
    ) -> None:
        """Take rules in.

        Raises:
            BadRules: a rule contradicts itself, or two watch the same.
        """
        self.rules = tuple(rules)
        self.inhibitions = inhibitions
        self.by_id: dict[str, Rule] = {}
        for rule in self.rules:
            _check(rule)
            if rule.id in self.by_id:
                raise BadRules(f"two rules for {rule.metric} of {rule.source or 'the fleet'}")
            self.by_id[rule.id] = rule
        self._by_scope = {(rule.metric, rule.source): rule for rule in self.rules if not rule.match}

    def find(self, metric: str, source: str) -> Rule | None:
        """Return the rule that watches a metric of a source (empty: the fleet)."""
        rule = self._by_scope.get((metric, source))
        if rule is None and source:
            rule = self._by_scope.get((metric, EVERY_SOURCE))
        return rule


def _check(rule: Rule) -> None:
    what = f"rule for {rule.metric or 'no metric'}"
    if not rule.metric:
        raise BadRules(f"{what}: `metric` is empty")
    base, _, suffix = rule.metric.rpartition(".")
    histogram = suffix in QUANTILE_SUFFIXES and METRIC_NAME.fullmatch(base)
    if not histogram and not METRIC_NAME.fullmatch(rule.metric):
        raise BadRules(
            f"{what}: no metric has this name: a letter or _, then letters, digits, and any of _ . : -"
        )
    numbers = (rule.warning, rule.critical, rule.warning_clear, rule.critical_clear)
    durations = (rule.for_s, rule.clear_for_s, rule.no_data_for_s, rule.forget_s)
    if not all(number is None or isfinite(number) for number in (*numbers, *durations)):
        raise BadRules(f"{what}: numbers must be finite")
    texts = [rule.metric, rule.source, *rule.match, *rule.match.values(), *rule.labels, *rule.labels.values()]
    if any(len(text) > MAX_TEXT_CHARS for text in texts) or len(rule.labels) + len(rule.match) > MAX_LABELS:
        raise BadRules(f"{what}: at most {MAX_LABELS} labels, and texts of {MAX_TEXT_CHARS} characters")
    if rule.match and rule.source == FLEET:
        raise BadRules(f"{what}: `match` needs a `source`, or `*`: the fleet has no labels")
    if rule.warning is None and rule.critical is None:
        raise BadRules(f"{what}: neither `warning` nor `critical` is given")
    if rule.limit < 1:
        raise BadRules(f"{what}: `limit` must be at least 1")
    if min(durations) < 0 or rule.min_count < 0:
        raise BadRules(f"{what}: durations and counts must not be negative")
    if rule.warning is not None and rule.critical is not None and not rule.is_over(rule.critical, "warning"):
        raise BadRules(f"{what}: `critical` must be {rule.op} `warning`")
    severities: tuple[Severity, ...] = ("warning", "critical")
    for severity in severities:
        clear, threshold = rule.clear_threshold(severity), rule.threshold(severity)
        if clear is not None and clear != threshold and rule.is_over(clear, severity):
            raise BadRules(f"{what}: `{severity}_clear` lies on the wrong side of `{severity}`")


# cpu, memory and disk alert at once, so that a page shows an alert within 1.5 s of the sample. Without
# requests there are no latencies: that a slow service fell silent does not mean it is still slow.
DEFAULT_RULES = RuleSet(
    (
        Rule(metric="cpu", warning=70, critical=90),
        Rule(metric="memory", warning=80, critical=95),
        Rule(metric="latencyP99", warning=500, critical=1000, no_data="resolve"),
        Rule(metric="errors", warning=10, critical=50, no_data="resolve"),
    )
)
