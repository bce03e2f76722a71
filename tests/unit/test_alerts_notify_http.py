"""Posting to receivers: the verdict of each answer, and a hanging receiver that delays no other.

How a post itself fails is in integration/test_webhook_sender.
"""

import asyncio

import pytest

from metrics_svc.notify import integrations
from metrics_svc.notify.decision import NotifyTimings
from metrics_svc.notify.integrations import MAX_CONCURRENT, WebhookIntegration
from metrics_svc.notify.notification import Notification
from metrics_svc.notify.receivers import ConfiguredReceiver
from services.webhooks import NotTaken
from services.wire.alerting import Receiver
from tests.support.deadline import eventually
from tests.support.notifying import entry
from tests.support.webhook_receiver import WebhookReceiver

MESSAGE = Notification("webhook-1", "{}:{}", {}, [entry()], [], "key")


async def failure(webhook: WebhookIntegration) -> NotTaken:
    with pytest.raises(NotTaken) as failed:
        await webhook.send(MESSAGE)
    await webhook.close()
    return failed.value


async def test_a_message_is_posted_with_its_key(receiver: WebhookReceiver) -> None:
    webhook = WebhookIntegration(receiver.url)
    await webhook.send(MESSAGE)
    await webhook.close()
    (post,) = receiver.posts
    assert (post.json["version"], post.headers["idempotency-key"]) == ("4", "key")


@pytest.mark.parametrize(
    ("status", "retry"), [(302, True), (400, False), (404, False), (408, True), (429, True), (500, True)]
)
async def test_what_an_answer_means(receiver: WebhookReceiver, status: int, retry: bool) -> None:
    receiver.status, receiver.retry_after = status, "7"
    fault = await failure(WebhookIntegration(receiver.url))
    assert (str(fault), fault.perhaps, fault.retry, fault.after_s) == (f"HTTP {status}", False, retry, 7)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "receiver", "http://127.0.0.1:1/x", "http://[::1"])
async def test_failed_posts_have_reasons(url: str) -> None:
    fault = await failure(WebhookIntegration(url))
    assert (str(fault), fault.perhaps) == ("unreachable", False)


async def test_without_an_answer_it_may_have_been_taken(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrations, "ATTEMPT_S", 1.0)
    receiver.drip_s = 60.0
    fault = await failure(WebhookIntegration(receiver.url))
    assert (str(fault), fault.perhaps) == ("timeout", True)


async def test_a_hanging_receiver_delays_no_other(receiver: WebhookReceiver) -> None:
    receiver.drip_s = 60.0
    webhook = WebhookIntegration(receiver.url)
    stuck = ConfiguredReceiver(Receiver(name="webhook-1", kind="webhook", up=True), webhook, NotifyTimings())
    waiting = [asyncio.create_task(stuck.send(MESSAGE)) for _ in range(4 * MAX_CONCURRENT)]
    await eventually(lambda: len(receiver.posts) == MAX_CONCURRENT, "as many as may be on their way")
    with WebhookReceiver() as well:
        other = WebhookIntegration(well.url)
        await other.send(MESSAGE)
        await other.close()
    assert not any(task.done() for task in waiting)
    assert len(receiver.posts) == MAX_CONCURRENT
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await webhook.close()
