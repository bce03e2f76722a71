"""Alert rules, and the built-in ones that apply without a rules file."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Literal

import msgspec

from metrics_svc.aggregation.rows import FLEET, LATENCY_NAMES, QUANTILE_SUFFIXES
from metrics_svc.alerts.muting import DEFAULT_INHIBITIONS, Inhibition
from services.wire.names import METRIC_NAME
from services.wire.records import Severity

EVERY_SOURCE = "*"
SEVERITIES: tuple[Severity, Severity] = ("warning", "critical")
MAX_TEXT_CHARS = 256
MAX_LABELS = 32
# Default clear threshold: 5 % on the good side of the threshold.
DEFAULT_CLEAR_MARGIN = 0.05

_UNITS = (
    dict.fromkeys(("cpu", "memory", "disk"), " %")
    | dict.fromkeys(LATENCY_NAMES, " ms")
    | dict.fromkeys(("requests", "errors"), "/s")
    | dict.fromkeys(("network_in", "network_out"), " B/s")
)


def alert_id(metric: str, source: str) -> str:
    """Id of the alert about a metric of a source (empty: the fleet).

    Unique, because metric names contain no `@`.
    """
    return f"{metric}@{source}-alert" if source else f"{metric}-alert"


class BadRules(ValueError):
    """Invalid rules; the message says which and why."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Condition on one metric under which an alert fires.

    Args:
        metric: name in a record (`cpu`, `latencyP99`), in a report's gauges and counters, of a histogram
            (`NAME.p95`), or `up`.
        source: empty for the fleet, `*` for each source, else one source.
        match: labels of the labelled series to watch (`*`: any value), each series on its own.
        aggregate: the fleet's value from those of its sources, if the record has none.
        op: a value `>=` (or `<=`) its threshold is over it.
        for_s: seconds the value must stay over a threshold before the alert fires.
        clear_for_s: seconds the value must stay past the clear threshold before the alert ends.
        no_data: what happens without data for `no_data_for_s`: a firing alert may `keep` firing or `resolve`; with
            `alert`, an alert fires.
        forget_s: a source (of `*`) without data for so long is removed, and its alert ends.
        min_count: for latencies and histograms: a second with fewer measured values counts as one without data.
        limit: maximum number of pending and firing alerts of this rule; more are counted and logged, and do not fire.
        labels: labels of the alerts, besides those of the source.
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
        """Id of the rule: its metric, source and labels, which no two rules share."""
        scope = f"{self.metric}@{self.source}" if self.source else self.metric
        match = ",".join(f"{name}={value}" for name, value in sorted(self.match.items()))
        return f"{scope}{{{match}}}" if match else scope

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Report whether a label set has the labels of `match`."""
        return all(name in labels and value in ("*", labels[name]) for name, value in self.match.items())

    def threshold(self, severity: Severity) -> float | None:
        return self.warning if severity == "warning" else self.critical

    def clear_threshold(self, severity: Severity) -> float | None:
        """Value past which an alert of this severity ends."""
        threshold = self.threshold(severity)
        if threshold is None:
            return None
        own = self.warning_clear if severity == "warning" else self.critical_clear
        if own is not None:
            return own
        margin = abs(threshold) * DEFAULT_CLEAR_MARGIN
        return threshold - margin if self.op == ">=" else threshold + margin

    def is_over(self, value: float, severity: Severity) -> bool:
        threshold = self.threshold(severity)
        if threshold is None:
            return False
        return value >= threshold if self.op == ">=" else value <= threshold

    def is_clear(self, value: float, severity: Severity) -> bool:
        """Report whether the value is past the clear threshold of this severity; true without a threshold."""
        clear = self.clear_threshold(severity)
        if clear is None:
            return True
        return value < clear if self.op == ">=" else value > clear

    @property
    def least_severity(self) -> Severity:
        return "critical" if self.warning is None else "warning"

    def describe(self, value: float, source: str) -> str:
        """Text for a value: `cpu is 93.1 %`."""
        subject = f"{self.metric} of {source}" if source else self.metric
        return f"{subject} is {value:.4g}{_UNITS.get(self.metric, '')}"


class RuleSet:
    """Rules by metric and source. A rule for a named source takes precedence over one for every source."""

    def __init__(
        self, rules: Iterable[Rule], inhibitions: tuple[Inhibition, ...] = DEFAULT_INHIBITIONS
    ) -> None:
        """Validate rules. Raises BadRules if a rule contradicts itself, or two have the same id."""
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
        """Return the rule for a metric of a source (empty: the fleet)."""
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
    for severity in SEVERITIES:
        clear, threshold = rule.clear_threshold(severity), rule.threshold(severity)
        if clear is not None and clear != threshold and rule.is_over(clear, severity):
            raise BadRules(f"{what}: `{severity}_clear` lies on the wrong side of `{severity}`")


# cpu and memory alert at once, so that the dashboard shows an alert within 1.5 s of the sample. Without requests there
# are no latencies: a slow service that fell silent is not necessarily still slow.
DEFAULT_RULES = RuleSet(
    (
        Rule(metric="cpu", warning=70, critical=90),
        Rule(metric="memory", warning=80, critical=95),
        Rule(metric="latencyP99", warning=500, critical=1000, no_data="resolve"),
        Rule(metric="errors", warning=10, critical=50, no_data="resolve"),
    )
)
