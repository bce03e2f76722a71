"""Rules files: their keys, and faulty ones."""

from pathlib import Path

import pytest

from metrics_svc.alerts.rule_store import RuleStore, parse
from metrics_svc.alerts.rules import DEFAULT_RULES, BadRules, Rule, RuleSet

GOOD = """
[[rule]]
metric = "cpu"
warning = 50
critical = 60.5
for_s = 5

[[rule]]
metric = "queue_depth"
source = "*"
critical = 1000
no_data = "alert"
labels = { team = "billing" }
"""


def test_a_good_file() -> None:
    cpu, depth = parse(GOOD).rules
    assert (cpu.warning, cpu.critical, cpu.for_s, cpu.no_data) == (50, 60.5, 5, "keep")
    assert (depth.source, depth.warning, depth.labels) == ("*", None, {"team": "billing"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[rule", "not TOML"),
        ("[[rule]]\nwarning = 5", "metric"),
        ('[[rule]]\nmetric = ""\nwarning = 5', "empty"),
        ('[[rule]]\nmetric = "cpu"', "neither"),
        ('[[rule]]\nmetric = "cpu"\nwarning = "high"', "float"),
        ('[[rule]]\nmetric = "cpu"\nwarning = nan', "finite"),
        ('[[rule]]\nmetric = "cpu"\nwarning = 90\ncritical = 70', "critical"),
        ('[[rule]]\nmetric = "cpu"\nop = "<="\nwarning = 70\ncritical = 90', "critical"),
        ('[[rule]]\nmetric = "cpu"\nop = ">"\nwarning = 70', "op"),
        ('[[rule]]\nmetric = "cpu"\nwarning = 70\nfor_s = -1', "negative"),
        ('[[rule]]\nmetric = "cpu"\nwarning = 70\nwarning_clear = 71', "wrong side"),
        ('[[rule]]\nmetric = "cpu"\nwarning = 70\nfro_s = 3', "fro_s"),
        ('[[rule]]\nmetric = "cpu"\nwarning = 70\n[[rule]]\nmetric = "cpu"\ncritical = 9', "two rules"),
        ('[[rule]]\nmetric = "queue@a"\nwarning = 5', "no metric has this name"),
        ('[[rule]]\nmetric = "queue depth.p95"\nwarning = 5', "no metric has this name"),
        ('[[rule]]\nmetric = "cpu"\nwarning = 5\nlimit = 0', "limit"),
        ("rules = 5", "rules"),
    ],
)
def test_bad_files_have_reasons(text: str, complaint: str) -> None:
    with pytest.raises(BadRules, match=complaint):
        parse(text)


def write(path: Path, text: str) -> None:
    """Replace a file as editors do."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def test_without_a_file_the_built_in_rules_hold() -> None:
    file = RuleStore(None)
    assert not file.load_file()
    assert file.rules is DEFAULT_RULES


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(GOOD)
    file = RuleStore(path)
    assert file.load_file()
    assert len(file.rules.rules) == 2
    assert not file.load_file()
    write(path, '[[rule]]\nmetric = "disk"\nwarning = 80\n')
    assert file.load_file()
    assert [rule.metric for rule in file.rules.rules] == ["disk"]


def test_a_bad_file_leaves_the_rules_unchanged_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(GOOD)
    file = RuleStore(path)
    file.load_file()
    before = file.rules
    for text in ("[[rule", "\udcff"):
        path.with_suffix(".x").write_bytes(text.encode(errors="surrogateescape"))
        path.with_suffix(".x").replace(path)
        assert file.load_file()
        assert file.rules is before
        assert str(path) in file.error
        assert not file.load_file()
    write(path, GOOD)
    assert file.load_file()
    assert file.error == ""


def test_a_missing_file_leaves_the_rules_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    file = RuleStore(path)
    assert file.load_file()
    assert file.rules is DEFAULT_RULES
    assert "rules.toml" in file.error
    path.write_text(GOOD)
    assert file.load_file()
    assert file.error == ""
    assert len(file.rules.rules) == 2


def test_an_unreadable_file_leaves_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.mkdir()
    file = RuleStore(path)
    file.load_file()
    assert file.rules is DEFAULT_RULES
    assert file.error


def test_precedence_of_scopes() -> None:
    every = Rule(metric="cpu", source="*", warning=1)
    one = Rule(metric="cpu", source="web", warning=2)
    rules = RuleSet([every, one])
    assert rules.find("cpu", "web") is one
    assert rules.find("cpu", "other") is every
    assert rules.find("cpu", "") is None
