"""The checker accepts histories of a correct deployment, and finds every single fault in them."""

from itertools import pairwise

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.histories import legal_histories
from tidings_cli.verify.checker import check
from tidings_cli.verify.history import AcknowledgedRecord, AnyRecord, ReceivedRecord
from tidings_cli.verify.report import Kind

# The last messages are acknowledged and reach members that are there: a fault among them cannot be excused.
_faulty = legal_histories(least_messages=3, wipes=False)


def _receipts(history: list[AnyRecord]) -> list[int]:
    return [index for index, event in enumerate(history) if isinstance(event, ReceivedRecord)]


@given(legal_histories())
def test_legal_histories_are_accepted(history: list[AnyRecord]) -> None:
    report = check(history)
    assert report.holds, report.text()
    assert report.unfinished == 0


@given(legal_histories(least_messages=3), st.data())
def test_a_dropped_message_is_found(history: list[AnyRecord], data: st.DataObject) -> None:
    acknowledged = {(e.id, e.epoch) for e in history if isinstance(e, AcknowledgedRecord)}
    last_epoch = [e.epoch for e in history if isinstance(e, AcknowledgedRecord)][-1]
    candidates = [
        index
        for index in _receipts(history)
        # Before a wipe the last messages of an epoch may be lost without a fault: the client is notified.
        if (event := history[index]).epoch == last_epoch  # type: ignore[union-attr]
        and (event.id, event.epoch) in acknowledged  # type: ignore[union-attr]
    ]
    assume(candidates)  # none where all members were away when the last epoch began
    del history[data.draw(st.sampled_from(candidates))]
    assert check(history).count(Kind.MISSING) == 1


@given(_faulty, st.data())
def test_a_repeated_message_is_found(history: list[AnyRecord], data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(_receipts(history)))
    history.insert(index + 1, history[index])
    assert check(history).count(Kind.DUPLICATE) == 1


@given(_faulty, st.data())
def test_swapped_messages_are_found(history: list[AnyRecord], data: st.DataObject) -> None:
    receipts = _receipts(history)
    by_member: dict[str, list[int]] = {}
    for index in receipts:
        by_member.setdefault(history[index].who, []).append(index)
    pairs = [pair for own in by_member.values() for pair in pairwise(own)]
    first, second = data.draw(st.sampled_from(pairs))
    history[first], history[second] = history[second], history[first]
    report = check(history)
    assert report.count(Kind.OUT_OF_ORDER) + report.count(Kind.UNEXPLAINED) >= 1, report.text()


@given(_faulty, st.data())
def test_an_invented_message_is_found(history: list[AnyRecord], data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(_receipts(history)))
    history[index] = msgspec.structs.replace(history[index], id="invented")
    report = check(history)
    assert report.count(Kind.UNEXPLAINED) == 1
    assert report.count(Kind.CONFLICT) >= 1 or report.count(Kind.MISSING) >= 1


@given(_faulty, st.data())
def test_an_acknowledgement_with_another_position_is_found(
    history: list[AnyRecord], data: st.DataObject
) -> None:
    indices = [index for index, event in enumerate(history) if isinstance(event, AcknowledgedRecord)]
    index = data.draw(st.sampled_from(indices))
    event = history[index]
    history[index] = msgspec.structs.replace(event, seq=event.seq + 1000)  # type: ignore[union-attr]
    assert not check(history).holds
