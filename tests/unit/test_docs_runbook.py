"""The runbook covers every alert, and names log lines and metrics that exist."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.telemetry import MetricName
from tests.support.docs import ROOT, anchors, name_of, pages, prose
from tests.support.requires import need

RUNBOOK = ROOT / "docs" / "runbook.md"
RULES = (ROOT / "deploy" / "monitoring" / "tidings.rules.yml").read_text(encoding="utf-8")
PACKAGES = ("services", "gateway", "presence_svc", "metrics_svc")
_LEVELS = {"debug", "info", "warning", "error", "exception"}
# Every line has these already, from its process and its level.
_TAKEN = {"timestamp", "level", "service", "instance", "logger", "event"}


def _log_calls() -> Iterator[tuple[Path, ast.Call]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in _LEVELS
                ):
                    target = node.func.value
                    if isinstance(target, ast.Name) and target.id in ("log", "_log"):
                        yield path, node


def test_every_alert_leads_to_its_section() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES)
    led = re.findall(r"runbook_url: (\S+)#(\S+)", RULES)
    assert [(f"{page}", anchor) for page, anchor in led] == [
        ("docs/runbook.md", name.lower()) for name in alerts
    ]
    assert {name.lower() for name in alerts} <= anchors(RUNBOOK)


def test_every_section_of_an_alert_has_an_alert() -> None:
    sections = re.findall(r"^### (Tidings\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(sections) == set(re.findall(r"- alert: (\w+)", RULES))


def test_log_lines_of_the_runbook_exist() -> None:
    lines = re.findall(r"^- \*\*Log\*\*: ((?:.|\n  )+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    named = {event for line in lines for event in re.findall(r"`([^`]+)`", line)}
    logged = {
        call.args[0].value for _, call in _log_calls() if call.args and isinstance(call.args[0], ast.Constant)
    }
    assert len(named) > 20
    assert named - logged == set()


def test_log_lines_do_not_overwrite_what_every_line_has() -> None:
    wrong = [
        f"{name_of(path)}:{call.lineno} {word.arg}"
        for path, call in _log_calls()
        for word in call.keywords
        if word.arg in _TAKEN
    ]
    assert wrong == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_metrics_named_in_the_docs_exist(page: Path) -> None:
    known = {metric.value.name for metric in MetricName}
    named = set(re.findall(r"\btidings_[a-z]+_[a-z_]+[a-z]\b", page.read_text(encoding="utf-8")))
    assert {name for name in named if re.sub(r"_(bucket|sum|count)$", "", name) not in known} == set()


def test_queries_in_the_docs_are_queries(tmp_path: Path) -> None:
    promtool = need("promtool", "Debian: apt-get install prometheus")
    queries = {
        " ".join(query.split())
        for page in pages()
        for paragraph in prose(page).split("\n\n")
        for query in paragraph.split("`")[1::2]
        if re.search(r"\btidings_\w+[^ ]*[({\[]|[({]tidings_", query)
    }
    assert len(queries) > 3
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(sorted(queries))]
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "docs", "rules": rules}]}), encoding="utf-8")
    checked = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr
