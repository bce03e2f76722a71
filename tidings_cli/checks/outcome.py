"""What trying one thing gave."""

import os
import ssl
import time
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it went."""

    OK = "ok"
    WARN = "warn"  # it works, and something will hurt later
    FAIL = "fail"  # a process cannot start, or does not do its work


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the report: what is so, and where that is not well, what to do. Neither has secrets."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""
    latency_ms: float | None = None

    @property
    def ok(self) -> bool:
        """Whether a process can do its work."""
        return self.verdict is not Verdict.FAIL


def good(name: str, detail: str, latency_ms: float | None = None) -> Outcome:
    """Return that all is well."""
    return Outcome(name, Verdict.OK, detail, "", latency_ms)


def warning(name: str, detail: str, advice: str, latency_ms: float | None = None) -> Outcome:
    """Return that it works, and what should be done."""
    return Outcome(name, Verdict.WARN, detail, advice, latency_ms)


def bad(name: str, detail: str, advice: str, latency_ms: float | None = None) -> Outcome:
    """Return that it does not work, and what has to be done."""
    return Outcome(name, Verdict.FAIL, detail, advice, latency_ms)


def reason_of(fault: Exception) -> str:
    """Return why, as the system says it: asyncio's own text names the address once more."""
    if isinstance(fault, OSError) and not isinstance(fault, ssl.SSLError) and fault.errno:
        return os.strerror(fault.errno) if fault.errno > 0 else str(fault.strerror)
    return str(fault) or type(fault).__name__


class Stopwatch:
    """Measures from its making."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds so far."""
        return (time.perf_counter() - self._started) * 1000


SKEW_WARN_S = 2.0
SKEW_FAIL_S = 30.0


def clock(name: str, theirs_s: float, ours_s: float) -> Outcome:
    """Judge two readings of the time that were taken together."""
    skew = theirs_s - ours_s
    if abs(skew) < SKEW_WARN_S:
        return good(name, f"differs by {abs(skew) * 1000:.0f} ms from this machine's")
    said = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    advice = (
        "run a time service (chrony, systemd-timesyncd) on both: tokens, history and alerts go by the clock"
    )
    return (bad if abs(skew) >= SKEW_FAIL_S else warning)(name, said, advice)
