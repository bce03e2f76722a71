"""Load on a deployment while a test breaks it, and the checker's verdict at the end."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.support.deadline import eventually
from tidings_cli.gateways import Gateways
from tidings_cli.verify.campaign import Campaign, Plan
from tidings_cli.verify.checker import check
from tidings_cli.verify.history import (
    AcknowledgedRecord,
    AnyRecord,
    JoinedRecord,
    LostRecord,
    Recorder,
    RefusedRecord,
)
from tidings_cli.verify.report import Report


class Load:
    """A running campaign, and what it has written down so far."""

    def __init__(self, campaign: Campaign, recorder: Recorder) -> None:
        self.campaign = campaign
        self.events = recorder.events
        self.report = Report()  # filled when the load ends

    def count(self, condition: Callable[[AnyRecord], bool], since: int = 0) -> int:
        """Return how many events since a place in the record satisfy a condition."""
        return sum(condition(event) for event in self.events[since:])

    async def acknowledged(self, more: int, timeout_s: float = 30.0) -> None:
        """Wait until so many more messages are acknowledged: the load flows."""
        start = len(self.events)
        await eventually(
            lambda: self.count(_is_acknowledgement, start) >= more, f"{more} more acknowledgements", timeout_s
        )

    async def refused(self, code: str = "unavailable", timeout_s: float = 15.0) -> None:
        """Wait until a request that is made from now on is refused with this code."""
        start = len(self.events)

        def refused(event: AnyRecord) -> bool:
            return isinstance(event, RefusedRecord) and event.code == code

        await eventually(lambda: self.count(refused, start), f"a refusal with {code}", timeout_s)

    @property
    def epochs(self) -> set[str]:
        """The epochs in which members stand now."""
        return {at.epoch for member in self.campaign.members for at in member.positions.values()}

    async def notified_of_a_new_epoch(self, before: set[str], timeout_s: float = 30.0) -> None:
        """Wait until no member has a position of an earlier epoch."""
        await eventually(lambda: not self.epochs & before, "all members notified of the new epoch", timeout_s)

    async def everybody_in(self, timeout_s: float = 45.0) -> None:
        """Wait until every member is in all its rooms."""
        await eventually(lambda: self.campaign.all_joined, "all members in their rooms", timeout_s)

    @property
    def users(self) -> set[str]:
        """The users of all WebSocket clients; streams do not have their user ids."""
        campaign = self.campaign
        return {client.user_id for client in (*campaign.members, *campaign.publishers) if client.user_id}

    @property
    def lost(self) -> list[LostRecord]:
        """Every connection that ended before it was meant to."""
        return [event for event in self.events if isinstance(event, LostRecord)]

    @property
    def verdicts(self) -> list[bool | None]:
        """The results of all joins: recovered, not recovered, or without a position."""
        return [event.recovered for event in self.events if isinstance(event, JoinedRecord)]


def _is_acknowledgement(event: AnyRecord) -> bool:
    return isinstance(event, AcknowledgedRecord)


@asynccontextmanager
async def under_load(
    urls: Sequence[str], history: Path, plan: Plan | None = None, *, before_fault: int = 30
) -> AsyncIterator[Load]:
    """Run a campaign around a fault; afterwards everything that was stored must have arrived, once, in order.

    The history stays on disk, to be read after a failure.
    """
    recorder = Recorder(history)
    campaign = Campaign(plan or Plan(publishers=4, members=20, rooms=5, rate=10.0), Gateways(urls), recorder)
    running = Load(campaign, recorder)
    try:
        await campaign.start()
        await running.acknowledged(before_fault)
        yield running
        await running.everybody_in()
        await running.acknowledged(20)
        settled = await campaign.finish()
    finally:
        await campaign.abort()
        recorder.close()
    running.report = check(recorder.events)
    assert running.report.holds, f"{running.report.text()}\nhistory: {history}"
    assert settled, f"not everything arrived\n{running.report.text()}\nhistory: {history}"


# What the fixture `load` is: `async with load() as running`.
StartLoad = Callable[..., AbstractAsyncContextManager[Load]]
