"""Sending: retried, noted after success only, at least once over a replica's death, with a key that tells."""

import pytest

from metrics_svc.notify.receivers import LONGEST_PAUSE_S, pause_s
from tests.support.notifying import TIMING, Telling


@pytest.fixture
async def telling() -> Telling:
    telling = Telling(receivers=2)
    await telling.lead()
    return telling


async def test_a_receiver_that_is_down_is_tried_again_and_shown(telling: Telling) -> None:
    telling.outlets[0].failing = True
    await telling.fire()
    await telling.run(60)
    assert telling.said == []
    assert len(telling.outlets[1].got) == 1  # the other one does not wait for it
    assert telling.notifier.down == ["webhook-1"]
    receivers = (await telling.store.notify_state(0)).receivers
    assert (receivers["webhook-1"].up, receivers["webhook-1"].error) == (False, "down")
    assert receivers["webhook-1"].waiting == 1
    assert 3 <= receivers["webhook-1"].failures <= 8
    telling.outlets[0].failing = False
    await telling.run(LONGEST_PAUSE_S + 1)
    assert telling.said == ["firing cpu-alert|warning"]
    receivers = (await telling.store.notify_state(0)).receivers
    assert (receivers["webhook-1"].up, receivers["webhook-1"].waiting) == (True, 0)
    assert telling.notifier.down == []


async def test_what_a_receiver_refuses_is_not_sent_again_until_it_says_something_else(
    telling: Telling,
) -> None:
    telling.outlets[0].refusing = True
    await telling.fire("cpu-a-alert")
    await telling.run(TIMING.repeat_interval_s, 10)
    assert telling.outlets[0].attempts == 1
    assert telling.notifier.down == ["webhook-1"]
    await telling.fire("cpu-b-alert")
    await telling.run(31)
    assert telling.outlets[0].attempts == 2
    telling.outlets[0].refusing = False
    await telling.run(TIMING.repeat_interval_s, 10)
    assert telling.said == ["firing cpu-a-alert|warning cpu-b-alert|warning"]


async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(telling: Telling) -> None:
    telling.outlets[0].failing, telling.outlets[0].after_s = True, 200.0
    await telling.fire()
    await telling.run(31)
    assert telling.outlets[0].attempts == 1
    await telling.run(195)
    assert telling.outlets[0].attempts == 1
    await telling.run(10)
    assert telling.outlets[0].attempts == 2


async def test_a_receiver_that_breaks_is_no_more_in_a_hurry_than_one_that_is_down(telling: Telling) -> None:
    telling.outlets[0].broken = True
    await telling.fire()
    await telling.run(90)
    assert 3 <= telling.outlets[0].attempts <= 8
    assert telling.notifier.down == ["webhook-1"]


async def test_what_ended_before_it_could_be_told_is_not_told(telling: Telling) -> None:
    telling.outlets[0].failing = True
    await telling.fire()
    await telling.run(40)
    await telling.end()
    telling.outlets[0].failing = False
    await telling.run(500, 5)
    assert telling.said == []


async def test_an_end_while_the_receiver_is_down_is_told_when_it_is_back(telling: Telling) -> None:
    await telling.fire()
    await telling.run(40)
    telling.outlets[0].failing = True
    await telling.run(300)
    await telling.end()
    await telling.run(600, 5)
    telling.outlets[0].failing = False
    await telling.run(LONGEST_PAUSE_S + 5)
    assert telling.said == ["firing cpu-alert|warning", "resolved -cpu-alert"]


async def test_the_log_is_written_after_success_only(telling: Telling) -> None:
    telling.outlets[0].failing = telling.outlets[1].failing = True
    await telling.fire()
    await telling.run(35)
    state = await telling.store.notify_state(0)
    assert (state.log, state.intents) == ({}, {})
    telling.outlets[0].failing = False
    await telling.run(30)
    assert [sent.receiver for sent in (await telling.store.notify_state(0)).log.values()] == ["webhook-1"]


async def test_a_message_whose_answer_was_lost_is_sent_again_with_the_same_key(telling: Telling) -> None:
    outlet = telling.outlets[0]
    outlet.perhaps = True
    await telling.fire()
    await telling.run(30)
    assert len(outlet.got) == 1
    outlet.perhaps = False
    await telling.lead("b")  # the replica dies before it knows
    await telling.run(2)
    assert len(outlet.got) == 2
    assert outlet.got[0].key == outlet.got[1].key
    await telling.run(600, 5)
    assert len(outlet.got) == 2


async def test_an_alert_that_ended_after_a_message_was_lost_is_told_to_have_ended(telling: Telling) -> None:
    outlet = telling.outlets[0]
    outlet.perhaps = True
    await telling.fire()
    await telling.run(30)
    await telling.end()
    await telling.lead("b")
    outlet.perhaps = False
    await telling.run(400, 5)
    assert telling.said == ["firing cpu-alert|warning", "resolved -cpu-alert"]


async def test_a_successor_tells_nothing_twice(telling: Telling) -> None:
    await telling.fire()
    await telling.run(40)
    await telling.lead("b")
    await telling.run(1000, 5)
    assert telling.said == ["firing cpu-alert|warning"]
    await telling.end()
    await telling.lead("c")
    await telling.run(10)
    assert telling.said == ["firing cpu-alert|warning", "resolved -cpu-alert"]


async def test_a_repetition_has_another_key(telling: Telling) -> None:
    await telling.fire()
    await telling.run(3700, 10)
    keys = [message.key for message in telling.outlets[0].got]
    assert len(keys) == len(set(keys)) == 2


async def test_a_replica_without_the_lease_sends_nothing(telling: Telling) -> None:
    old = telling.notifier
    await telling.lead("b")
    await telling.fire()
    telling.time.now += 60
    await old.turn()
    await old.settle(1)
    assert telling.said == []


async def test_nothing_is_kept_of_what_everybody_was_told(telling: Telling) -> None:
    await telling.fire()
    await telling.run(40)
    await telling.end()
    await telling.run(400, 5)
    state = await telling.store.notify_state(0)
    assert (state.notices, state.log, state.intents) == ({}, {}, {})


async def test_a_receiver_taken_out_of_the_configuration_is_forgotten(telling: Telling) -> None:
    await telling.fire()
    await telling.run(40)
    telling.outlets.pop()
    await telling.lead("b")
    await telling.run(2)
    state = await telling.store.notify_state(0)
    assert set(state.receivers) == {"webhook-1"}
    assert {sent.receiver for sent in state.log.values()} == {"webhook-1"}


async def test_a_receiver_that_does_it_all_itself_is_told_of_muted_alerts() -> None:
    telling = Telling(raw=True)
    await telling.lead()
    await telling.silence(1000, metric="cpu")
    await telling.fire()
    await telling.run(31)
    assert telling.said == ["firing cpu-alert|warning"]


def test_pauses_grow_and_are_bounded() -> None:
    assert [0.8 * 2**number <= pause_s(number + 1) <= 2**number for number in range(6)] == [True] * 6
    assert pause_s(1000) <= LONGEST_PAUSE_S
