"""Rules of the file and of the API, merged."""

from pathlib import Path

import pytest

from metrics_svc.alerts.rule_store import RuleStore, encode, parse, to_rule
from metrics_svc.alerts.rules import BadRules, Rule
from services.wire.alerting import AlertRule

FILE = '[[rule]]\nmetric = "cpu"\nwarning = 50\n'


def stored(*rules: Rule) -> dict[str, bytes]:
    return {rule.id: encode(rule) for rule in rules}


def thresholds(store: RuleStore) -> dict[str, float | None]:
    return {rule.id: rule.warning for rule in store.rules.rules}


def test_without_a_file_the_api_replaces_built_in_rules() -> None:
    rules = RuleStore(None)
    assert rules.load_api_rules(
        stored(Rule(metric="cpu", warning=10), Rule(metric="depth", source="*", warning=1))
    )
    assert thresholds(rules)["cpu"] == 10
    assert thresholds(rules)["depth@*"] == 1
    assert thresholds(rules)["memory"] == 80
    listed = {
        rule.id: (rule.origin, rule.overridden) for rule in rules.listed().rules if rule.origin == "api"
    }
    assert {id: origin for id, (origin, _) in listed.items()} == {"cpu": "api", "depth@*": "api"}


def test_the_file_wins_over_the_api(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    rules = RuleStore(path)
    assert rules.load_file()
    rules.load_api_rules(stored(Rule(metric="cpu", warning=10), Rule(metric="disk", warning=5)))
    assert thresholds(rules) == {"cpu": 50, "disk": 5}
    of_api = {rule.id: rule.overridden for rule in rules.listed().rules if rule.origin == "api"}
    assert of_api["cpu"] is True
    assert of_api["disk"] is not True


def test_a_bad_file_is_shown_and_the_api_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    rules = RuleStore(path)
    rules.load_file()
    path.write_text("[[rule")
    assert rules.load_file()
    rules.load_api_rules(stored(Rule(metric="disk", warning=5)))
    assert thresholds(rules) == {"cpu": 50, "disk": 5}
    assert "not TOML" in rules.listed().error


def test_taking_the_same_again_changes_nothing() -> None:
    rules = RuleStore(None)
    given = stored(Rule(metric="disk", warning=5))
    assert rules.load_api_rules(given)
    assert not rules.load_api_rules(given)
    assert rules.load_api_rules({})
    assert "disk" not in thresholds(rules)


def test_what_another_version_wrote_is_left_out() -> None:
    rules = RuleStore(None)
    rules.load_api_rules(
        {"x": b"{", "y": b'{"metric":"cpu"}', "disk": encode(Rule(metric="disk", warning=5))}
    )
    assert thresholds(rules)["disk"] == 5
    assert rules.unreadable == ["x", "y"]
    rules.load_api_rules({})
    assert rules.unreadable == []


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
