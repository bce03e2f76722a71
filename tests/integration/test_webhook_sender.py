"""One post to a receiver with every kind of answer: the sender's verdict and its time limit."""

import email.utils
import time
from collections.abc import AsyncIterator

import pytest

from services.webhooks import MAX_RETRY_AFTER_S, NotTaken, WebhookSender
from tests.support.webhook_receiver import WebhookReceiver

KEY = "a-secret-that-both-know"


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    running = WebhookSender([KEY])
    yield running
    await running.close()


async def refused(sender: WebhookSender, url: str) -> NotTaken:
    with pytest.raises(NotTaken) as caught:
        await sender.post(url, b"{}")
    return caught.value


async def test_a_post_is_signed_and_taken(receiver: WebhookReceiver, sender: WebhookSender):
    await sender.post(receiver.url, b'{"a":1}', {"Idempotency-Key": "k"})
    await sender.post(receiver.url, b"{}")
    (first, _) = receiver.posts
    assert first.signed_with(KEY)
    assert first.body == b'{"a":1}'
    assert (first.headers["idempotency-key"], first.headers["content-type"]) == ("k", "application/json")


async def test_without_secrets_a_post_has_no_signature(receiver: WebhookReceiver):
    sender = WebhookSender()
    await sender.post(receiver.url, b"{}")
    await sender.close()
    assert not [name for name in receiver.posts[0].headers if name.startswith("tidings-")]


@pytest.mark.parametrize(
    ("status", "reason", "retry"),
    [
        (302, "3xx", True),
        (400, "4xx", False),
        (401, "4xx", False),
        (413, "4xx", False),
        (408, "4xx", True),
        (429, "4xx", True),
        (500, "5xx", True),
        (503, "5xx", True),
    ],
)
async def test_an_answer_decides_whether_to_retry(receiver, sender, status, reason, retry):
    receiver.status = status
    fault = await refused(sender, receiver.url)
    assert (fault.reason, fault.status, fault.retry, fault.perhaps, fault.after_s) == (
        reason, status, retry, False, 0.0,
    )  # fmt: skip


async def test_a_receiver_sets_the_retry_time(receiver, sender):
    receiver.status = 503
    for header, low, high in (
        ("7", 7, 7),
        ("86400", MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S),
        (email.utils.formatdate(time.time() + 60, usegmt=True), 30, 60),
        (email.utils.formatdate(time.time() - 60, usegmt=True), 0, 0),
        ("soon", 0, 0),
        ("-3", 0, 0),
    ):
        receiver.retry_after = header
        assert low <= (await refused(sender, receiver.url)).after_s <= high, header


async def test_a_receiver_that_is_not_there_has_taken_nothing(sender):
    with WebhookReceiver() as gone:
        url = gone.url
    fault = await refused(sender, url)
    assert (fault.reason, fault.retry, fault.perhaps) == ("unreachable", True, False)


@pytest.mark.timing
async def test_a_receiver_that_drips_its_answer_has_the_time_of_one_post(receiver):
    """Each byte is in time; all of them together are not."""
    receiver.drip_s = 6.0
    sender = WebhookSender([KEY], attempt_s=1.0)
    began = time.monotonic()
    fault = await refused(sender, receiver.url)
    took = time.monotonic() - began
    await sender.close()
    assert (fault.reason, fault.retry, fault.perhaps) == ("timeout", True, True)
    assert 1.0 <= took < 3.0
