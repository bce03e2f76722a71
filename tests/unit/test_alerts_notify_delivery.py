"""Sending: retried, recorded only after success, at least once over a replica's death, with an idempotency key."""

import pytest

from metrics_svc.notify.receivers import MAX_BACKOFF_S, backoff_s
from tests.support.notifying import TIMING, NotifyRig


@pytest.fixture
async def rig() -> NotifyRig:
    rig = NotifyRig(receivers=2)
    await rig.lead()
    return rig


async def test_a_receiver_that_is_down_is_tried_again_and_shown(rig: NotifyRig) -> None:
    rig.integrations[0].failing = True
    await rig.fire()
    await rig.run(60)
    assert rig.said == []
    assert len(rig.integrations[1].got) == 1  # the other one does not wait for it
    assert rig.notifier.down == ["webhook-1"]
    receivers = (await rig.store.notify_state(0)).receivers
    assert (receivers["webhook-1"].up, receivers["webhook-1"].error) == (False, "down")
    assert receivers["webhook-1"].waiting == 1
    assert 3 <= receivers["webhook-1"].failures <= 8
    rig.integrations[0].failing = False
    await rig.run(MAX_BACKOFF_S + 1)
    assert rig.said == ["firing cpu-alert|warning"]
    receivers = (await rig.store.notify_state(0)).receivers
    assert (receivers["webhook-1"].up, receivers["webhook-1"].waiting) == (True, 0)
    assert rig.notifier.down == []


async def test_what_a_receiver_refuses_is_not_sent_again_until_it_says_something_else(
    rig: NotifyRig,
) -> None:
    rig.integrations[0].refusing = True
    await rig.fire("cpu-a-alert")
    await rig.run(TIMING.repeat_interval_s, 10)
    assert rig.integrations[0].attempts == 1
    assert rig.notifier.down == ["webhook-1"]
    await rig.fire("cpu-b-alert")
    await rig.run(31)
    assert rig.integrations[0].attempts == 2
    rig.integrations[0].refusing = False
    await rig.run(TIMING.repeat_interval_s, 10)
    assert rig.said == ["firing cpu-a-alert|warning cpu-b-alert|warning"]


async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(rig: NotifyRig) -> None:
    rig.integrations[0].failing, rig.integrations[0].after_s = True, 200.0
    await rig.fire()
    await rig.run(31)
    assert rig.integrations[0].attempts == 1
    await rig.run(195)
    assert rig.integrations[0].attempts == 1
    await rig.run(10)
    assert rig.integrations[0].attempts == 2


async def test_a_receiver_that_breaks_is_no_more_in_a_hurry_than_one_that_is_down(rig: NotifyRig) -> None:
    rig.integrations[0].broken = True
    await rig.fire()
    await rig.run(90)
    assert 3 <= rig.integrations[0].attempts <= 8
    assert rig.notifier.down == ["webhook-1"]


async def test_what_ended_before_its_notification_is_not_notified(rig: NotifyRig) -> None:
    rig.integrations[0].failing = True
    await rig.fire()
    await rig.run(40)
    await rig.end()
    rig.integrations[0].failing = False
    await rig.run(500, 5)
    assert rig.said == []


async def test_a_resolve_while_the_receiver_is_down_is_notified_later(rig: NotifyRig) -> None:
    await rig.fire()
    await rig.run(40)
    rig.integrations[0].failing = True
    await rig.run(300)
    await rig.end()
    await rig.run(600, 5)
    rig.integrations[0].failing = False
    await rig.run(MAX_BACKOFF_S + 5)
    assert rig.said == ["firing cpu-alert|warning", "resolved -cpu-alert"]


async def test_the_log_is_written_after_success_only(rig: NotifyRig) -> None:
    rig.integrations[0].failing = rig.integrations[1].failing = True
    await rig.fire()
    await rig.run(35)
    state = await rig.store.notify_state(0)
    assert (state.nflog, state.pending_sends) == ({}, {})
    rig.integrations[0].failing = False
    await rig.run(30)
    assert [sent.receiver for sent in (await rig.store.notify_state(0)).nflog.values()] == ["webhook-1"]


async def test_a_message_whose_answer_was_lost_is_sent_again_with_the_same_key(rig: NotifyRig) -> None:
    integration = rig.integrations[0]
    integration.perhaps = True
    await rig.fire()
    await rig.run(30)
    assert len(integration.got) == 1
    integration.perhaps = False
    await rig.lead("b")  # the replica dies before it knows
    await rig.run(2)
    assert len(integration.got) == 2
    assert integration.got[0].key == integration.got[1].key
    await rig.run(600, 5)
    assert len(integration.got) == 2


async def test_an_alert_that_ended_after_a_lost_message_is_shown_as_ended(rig: NotifyRig) -> None:
    integration = rig.integrations[0]
    integration.perhaps = True
    await rig.fire()
    await rig.run(30)
    await rig.end()
    await rig.lead("b")
    integration.perhaps = False
    await rig.run(400, 5)
    assert rig.said == ["firing cpu-alert|warning", "resolved -cpu-alert"]


async def test_a_successor_notifies_nothing_twice(rig: NotifyRig) -> None:
    await rig.fire()
    await rig.run(40)
    await rig.lead("b")
    await rig.run(1000, 5)
    assert rig.said == ["firing cpu-alert|warning"]
    await rig.end()
    await rig.lead("c")
    await rig.run(10)
    assert rig.said == ["firing cpu-alert|warning", "resolved -cpu-alert"]


async def test_a_repetition_has_another_key(rig: NotifyRig) -> None:
    await rig.fire()
    await rig.run(3700, 10)
    keys = [message.key for message in rig.integrations[0].got]
    assert len(keys) == len(set(keys)) == 2


async def test_a_replica_without_the_lease_sends_nothing(rig: NotifyRig) -> None:
    old = rig.notifier
    await rig.lead("b")
    await rig.fire()
    rig.time.now += 60
    await old.run_once()
    await old.settle(1)
    assert rig.said == []


async def test_delivered_broadcasts_are_not_kept(rig: NotifyRig) -> None:
    await rig.fire()
    await rig.run(40)
    await rig.end()
    await rig.run(400, 5)
    state = await rig.store.notify_state(0)
    assert (state.pending_alerts, state.nflog, state.pending_sends) == ({}, {}, {})


async def test_a_receiver_taken_out_of_the_configuration_is_forgotten(rig: NotifyRig) -> None:
    await rig.fire()
    await rig.run(40)
    rig.integrations.pop()
    await rig.lead("b")
    await rig.run(2)
    state = await rig.store.notify_state(0)
    assert set(state.receivers) == {"webhook-1"}
    assert {sent.receiver for sent in state.nflog.values()} == {"webhook-1"}


async def test_a_receiver_with_policies_of_its_own_gets_muted_alerts() -> None:
    rig = NotifyRig(delegates_policy=True)
    await rig.lead()
    await rig.silence(1000, metric="cpu")
    await rig.fire()
    await rig.run(31)
    assert rig.said == ["firing cpu-alert|warning"]


def test_pauses_grow_and_are_bounded() -> None:
    assert [0.8 * 2**number <= backoff_s(number + 1) <= 2**number for number in range(6)] == [True] * 6
    assert backoff_s(1000) <= MAX_BACKOFF_S
