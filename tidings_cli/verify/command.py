"""`tidings verify`: load on a deployment, records of its clients, and their check; or the check of a kept history."""

import asyncio
import re
from pathlib import Path

from tidings_cli import CommandFailed
from tidings_cli.gateways import Gateways
from tidings_cli.verify.campaign import Campaign, Plan
from tidings_cli.verify.checker import check
from tidings_cli.verify.history import BadHistory, Recorder, read_history
from tidings_cli.verify.report import Report

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds_of(text: str) -> float:
    """Return the seconds in `30s`, `500ms`, `5m`, `1h` or `30`.

    Raises:
        CommandFailed: the text is not a duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise CommandFailed(f"{text!r} is not a duration: write 30s, 5m or 1h")
    return float(found[1]) * _UNIT_S[found[2]]


def check_file(path: Path) -> Report:
    """Check a kept history.

    Raises:
        CommandFailed: the file is not readable, or not a history.
    """
    try:
        return check(read_history(path))
    except OSError as fault:
        raise CommandFailed(f"{path}: {fault.strerror}") from None
    except BadHistory as fault:
        raise CommandFailed(str(fault)) from None


async def run(plan: Plan, gateways: Gateways, duration_s: float, keep: Path | None) -> Report:
    """Run a campaign against a deployment, and check its records.

    Raises:
        CommandFailed: the clients did not connect and join.
    """
    try:
        recorder = Recorder(keep)
    except OSError as fault:
        raise CommandFailed(f"{keep}: {fault.strerror}") from None
    campaign = Campaign(plan, gateways, recorder)
    try:
        await campaign.start()
        await asyncio.sleep(duration_s)
        await campaign.finish()
    finally:
        await campaign.abort()
        recorder.close()
    return check(recorder.events)
