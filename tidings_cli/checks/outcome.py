"""The result of one check."""

import os
import ssl
import time
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The grade of an outcome."""

    OK = "ok"
    WARN = "warn"  # it works, with a risk
    FAIL = "fail"  # a process cannot start or work


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the report, and advice for a problem. Neither has secrets."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""
    latency_ms: float | None = None

    @property
    def ok(self) -> bool:
        return self.verdict is not Verdict.FAIL


def good(name: str, detail: str, since: float | None = None) -> Outcome:
    """Return a success. Its latency is the time since `since` (`time.perf_counter`)."""
    return Outcome(name, Verdict.OK, detail, "", _ms_since(since))


def warning(name: str, detail: str, advice: str, since: float | None = None) -> Outcome:
    return Outcome(name, Verdict.WARN, detail, advice, _ms_since(since))


def bad(name: str, detail: str, advice: str) -> Outcome:
    return Outcome(name, Verdict.FAIL, detail, advice)


def _ms_since(since: float | None) -> float | None:
    return None if since is None else (time.perf_counter() - since) * 1000


def reason_of(fault: Exception) -> str:
    """Return the system's own reason: asyncio's text repeats the address."""
    if isinstance(fault, OSError) and not isinstance(fault, ssl.SSLError) and fault.errno:
        return os.strerror(fault.errno) if fault.errno > 0 else str(fault.strerror)
    return str(fault) or type(fault).__name__


REACH_S = 3.0  # limit for a server's answer
SKEW_WARN_S = 2.0
SKEW_FAIL_S = 30.0


def clock(name: str, theirs_s: float, ours_s: float) -> Outcome:
    """Compare two readings of the time that were taken together."""
    skew = theirs_s - ours_s
    if abs(skew) < SKEW_WARN_S:
        return good(name, f"differs by {abs(skew) * 1000:.0f} ms from this machine's")
    said = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    advice = "run a time service (chrony, systemd-timesyncd) on both: tokens, history and alerts depend on the time"
    return (bad if abs(skew) >= SKEW_FAIL_S else warning)(name, said, advice)
