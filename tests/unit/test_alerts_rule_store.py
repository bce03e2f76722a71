"""Rules of the file and of the API, merged."""

from pathlib import Path

import pytest

from metrics_svc.alerts.rule_store import RuleStore, encode, to_rule
from metrics_svc.alerts.rules import BadRules, Rule
from metrics_svc.alerts.rules_file import parse
from services.wire.alerting import AlertRule

FILE = '[[rule]]\nmetric = "cpu"\nwarning = 50\n'


def stored(*rules: Rule) -> dict[str, bytes]:
    return {rule.id: encode(rule) for rule in rules}


def thresholds(book: RuleStore) -> dict[str, float | None]:
    return {rule.id: rule.warning for rule in book.rules.rules}


def test_without_a_file_the_api_replaces_built_in_rules() -> None:
    book = RuleStore(None)
    assert book.take(stored(Rule(metric="cpu", warning=10), Rule(metric="depth", source="*", warning=1)))
    assert thresholds(book)["cpu"] == 10
    assert thresholds(book)["depth@*"] == 1
    assert thresholds(book)["memory"] == 80
    listed = {rule.id: (rule.origin, rule.overridden) for rule in book.listed().rules if rule.origin == "api"}
    assert {id: origin for id, (origin, _) in listed.items()} == {"cpu": "api", "depth@*": "api"}


def test_the_file_wins_over_the_api(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    book = RuleStore(path)
    assert book.poll()
    book.take(stored(Rule(metric="cpu", warning=10), Rule(metric="disk", warning=5)))
    assert thresholds(book) == {"cpu": 50, "disk": 5}
    of_api = {rule.id: rule.overridden for rule in book.listed().rules if rule.origin == "api"}
    assert of_api["cpu"] is True
    assert of_api["disk"] is not True


def test_a_bad_file_is_shown_and_the_api_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    book = RuleStore(path)
    book.poll()
    path.write_text("[[rule")
    assert book.poll()
    book.take(stored(Rule(metric="disk", warning=5)))
    assert thresholds(book) == {"cpu": 50, "disk": 5}
    assert "not TOML" in book.listed().error


def test_taking_the_same_again_changes_nothing() -> None:
    book = RuleStore(None)
    rules = stored(Rule(metric="disk", warning=5))
    assert book.take(rules)
    assert not book.take(rules)
    assert book.take({})
    assert "disk" not in thresholds(book)


def test_what_another_version_wrote_is_left_out() -> None:
    book = RuleStore(None)
    book.take({"x": b"{", "y": b'{"metric":"cpu"}', "disk": encode(Rule(metric="disk", warning=5))})
    assert thresholds(book)["disk"] == 5
    assert book.unreadable == ["x", "y"]
    book.take({})
    assert book.unreadable == []


@pytest.mark.parametrize(
    "asked",
    [
        AlertRule(metric="cpu"),
        AlertRule(metric="cpu", warning=90, critical=70),
        AlertRule(metric="cpu", warning=1, match={"a": "b"}),
        AlertRule(metric="cpu", warning=1, labels={"a": "x" * 1000}),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(asked: AlertRule) -> None:
    with pytest.raises(BadRules):
        to_rule(asked)


def test_inhibitions_of_a_file_replace_the_built_in_ones() -> None:
    rules = parse('[[inhibit]]\nsource = [{name="metric",value="a"}]\ntarget = [{name="metric",value="b"}]\n')
    assert len(rules.inhibitions) == 1
    assert parse("inhibit = []\n").inhibitions == ()
    with pytest.raises(BadRules, match="matchers"):
        parse('[[inhibit]]\nsource = []\ntarget = [{name="metric",value="b"}]\n')
