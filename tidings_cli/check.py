"""`tidings check`: validates the configuration, tries everything it names, and advises on problems."""

import msgspec
from rich.console import Console
from rich.text import Text

from services.logs.redaction import clean_text
from services.permissions import Role
from services.settings import Settings
from services.settings_problems import problems_of
from tidings_cli.checks.configuration import check_configuration
from tidings_cli.checks.endpoints import check_endpoints
from tidings_cli.checks.machine import check_machine
from tidings_cli.checks.nats import check_nats
from tidings_cli.checks.outcome import Outcome, Verdict, bad
from tidings_cli.checks.store import check_store
from tidings_cli.local.servers import with_local_servers

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


async def run_checks(settings: Settings, role: Role | None = None) -> list[Outcome]:
    """Try everything once, or the needs of one kind of process, as its user.

    Without configured URLs, the servers of a running `tidings up` are tried.
    """
    outcomes = check_configuration(settings, role)
    if problems_of(settings, role):  # no process starts: other checks would be noise
        return outcomes
    found = with_local_servers(settings)
    outcomes += await check_machine(settings, role)
    if found.nats_url:
        outcomes += await check_nats(found, role)
    else:
        outcomes.append(_unset("NATS", "TIDINGS_NATS_URL"))
    if role in (None, Role.PRESENCE, Role.METRICS):
        if found.redis_url:
            outcomes += await check_store(found, role)
        else:
            outcomes.append(_unset("Redis", "TIDINGS_REDIS_URL"))
    return outcomes + await check_endpoints(settings, role)


def _unset(name: str, variable: str) -> Outcome:
    detail = f"{variable} is not set, and no `tidings up` has run in this data directory"
    return bad(name, detail, f"set {variable}, or start `tidings up`")


def show(outcomes: list[Outcome]) -> None:
    """Print a line for each outcome, advice below problems, and the totals. No line is wrapped or cut."""
    console = Console(soft_wrap=True, highlight=False)
    widest = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        latency = f"{outcome.latency_ms:.1f} ms" if outcome.latency_ms is not None else ""
        console.print(
            Text.assemble(
                f"{outcome.name:{widest}}  ",
                (f"{outcome.verdict:4}", _COLOURS[outcome.verdict]),
                f"  {latency:>9}  {clean_text(outcome.detail)}",
            )
        )
        if outcome.advice:
            console.print(Text(f"{'':{widest}}  → {clean_text(outcome.advice)}", style="bold"))
    failed = sum(not outcome.ok for outcome in outcomes)
    warned = sum(outcome.verdict is Verdict.WARN for outcome in outcomes)
    console.print(f"{len(outcomes)} checks: {failed} failed, {warned} to look at")


def as_json(outcomes: list[Outcome]) -> str:
    """Return the report for programs: `ok`, and `checks` with `name`, `verdict`, `detail`, `advice`, `latencyMs`."""
    checks = [
        {
            "name": outcome.name,
            "verdict": outcome.verdict,
            "detail": clean_text(outcome.detail),
            "advice": clean_text(outcome.advice),
            "latencyMs": None if outcome.latency_ms is None else round(outcome.latency_ms, 2),
        }
        for outcome in outcomes
    ]
    return msgspec.json.encode({"ok": all(one.ok for one in outcomes), "checks": checks}).decode()
