"""The checker's verdicts on single situations, and the format of a history."""

from pathlib import Path
from typing import Any

import pytest

from services.wire.records import Position
from tests.support.histories import ModelMember, ModelRoom, write_history
from tidings_cli.verify.checker import check
from tidings_cli.verify.history import (
    AcknowledgedRecord,
    AnyRecord,
    BadHistory,
    FinishedRecord,
    JoinedRecord,
    JoiningRecord,
    LeftRecord,
    LostRecord,
    PublishedRecord,
    ReceivedRecord,
    Recorder,
    read_history,
)
from tidings_cli.verify.report import Kind

ROOM = "lobby"


def joined(seq: int, *, epoch: str = "e", **more: Any) -> JoinedRecord:
    return JoinedRecord(who="ann", room=ROOM, epoch=epoch, seq=seq, **more)


def received(seq: int, *, epoch: str = "e", id: str = "", **more: Any) -> ReceivedRecord:
    return ReceivedRecord(who="ann", room=ROOM, id=id or f"m{seq}", epoch=epoch, seq=seq, **more)


def stored(*seqs: int, epoch: str = "e") -> list[AnyRecord]:
    events: list[AnyRecord] = []
    for seq in seqs:
        events.append(PublishedRecord(who="bob", room=ROOM, id=f"m{seq}"))
        events.append(AcknowledgedRecord(who="bob", room=ROOM, id=f"m{seq}", epoch=epoch, seq=seq))
    return events


def kinds(*events: AnyRecord) -> list[Kind]:
    return [finding.kind for finding in check(events).findings]


def test_what_was_stored_before_a_fresh_join_is_not_owed() -> None:
    assert kinds(*stored(1, 2), joined(2), *stored(3), received(3), FinishedRecord(who="ann")) == []


def test_a_resume_that_falsely_claims_to_be_complete_is_found() -> None:
    away = [joined(0), LostRecord(who="ann"), *stored(1, 2)]
    resumed = joined(2, since=Position("e", 0), recovered=True)
    assert kinds(*away, resumed, received(2, via="missed"), FinishedRecord(who="ann")) == [Kind.MISSING]


def test_a_gap_that_was_notified_is_reported_and_is_no_fault() -> None:
    away = [joined(0), LostRecord(who="ann"), *stored(1, 2)]
    report = check([*away, joined(2, since=Position("e", 0), recovered=False), FinishedRecord(who="ann")])
    assert report.holds
    assert [(gap.before.seq, gap.after.seq, gap.other_epoch) for gap in report.gaps] == [(0, 2, False)]


def test_messages_with_a_resume_that_did_not_recover_are_found() -> None:
    away = [joined(0), LostRecord(who="ann"), *stored(1, 2)]
    told = joined(2, since=Position("e", 0), recovered=False)
    assert Kind.PARTIAL in kinds(*away, told, received(2, via="missed"), FinishedRecord(who="ann"))


def test_a_resume_without_a_verdict_is_found() -> None:
    assert kinds(joined(0), LostRecord(who="ann"), joined(0, since=Position("e", 0))) == [Kind.PARTIAL]


def test_a_resume_from_an_impossible_position_is_found() -> None:
    events = [*stored(1), joined(1), LostRecord(who="ann"), joined(1, since=Position("e", 0), recovered=True)]
    assert kinds(*events) == [Kind.POSITION]


def test_an_epoch_that_changes_unannounced_is_found() -> None:
    events = [joined(0), *stored(1), received(1), *stored(2, epoch="f"), received(2, epoch="f")]
    assert kinds(*events) == [Kind.POSITION]


def test_a_message_for_a_member_who_left_is_found() -> None:
    assert kinds(joined(0), LeftRecord(who="ann", room=ROOM), *stored(1), received(1)) == [Kind.UNEXPLAINED]


def test_two_messages_with_one_position_are_found() -> None:
    other = PublishedRecord(who="bob", room=ROOM, id="other")
    assert Kind.CONFLICT in kinds(joined(0), *stored(1), other, received(1, id="other"))


def test_an_acknowledged_message_that_stands_before_an_earlier_one_is_found() -> None:
    assert kinds(*stored(5), *stored(4)) == [Kind.POSITION]


def test_a_message_acknowledged_and_repeated_in_a_new_epoch_is_found() -> None:
    events = [
        joined(0),
        *stored(1),
        received(1),
        joined(0, epoch="f", since=Position("e", 1), recovered=False),
        received(1, epoch="f"),
    ]
    assert kinds(*events) == [Kind.DUPLICATE]


def test_a_member_that_never_came_back_is_found() -> None:
    assert kinds(joined(0), LostRecord(who="ann"), FinishedRecord(who="ann")) == [Kind.ABSENT]


def test_a_request_that_waits_too_long_is_found() -> None:
    asked = JoiningRecord(who="ann", room=ROOM, clock=1.0)
    assert kinds(asked, joined(0, clock=10.9)) == []
    assert kinds(asked, joined(0, clock=11.1)) == [Kind.SILENCE]
    assert kinds(asked, FinishedRecord(who="ann", clock=30.0)) == [Kind.SILENCE]


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    room = ModelRoom(members=[ModelMember("ann")])
    room.join(room.members[0])
    room.publish(answered=True)
    room.wipe()
    path = tmp_path / "history.jsonl"
    write_history(path, room.finish())
    assert list(read_history(path)) == room.events


def test_a_recorder_stamps_and_keeps(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path, now_ms=lambda: 1_700_000_000_000, clock=lambda: 12.5)
    recorder.add(LostRecord(who="ann", why="gone"))
    recorder.close()
    assert list(read_history(path)) == recorder.events
    assert recorder.events == [LostRecord(who="ann", why="gone", at=1_700_000_000_000, clock=12.5)]


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"event":"finished","who":"ann"}\n{"event":"guessed"}\n')
    with pytest.raises(BadHistory, match=r"history.jsonl:2: .*guessed"):
        list(read_history(path))


def test_findings_are_explained_and_shown() -> None:
    text = check([joined(0), LostRecord(who="ann"), FinishedRecord(who="ann")]).text()
    assert "1 guarantees broken" in text
    assert "1 absent: a member was missing at the end" in text
    assert "- absent: ann in lobby" in text
