"""Channel subscriptions: counts the followers of each channel, and subscribes again on every connection."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, Self

from tidings_client.clock import Clock
from tidings_client.errors import ConnectionLost, TidingsError
from tidings_client.generated.wire import ClientMessage, ClientSubscribe, ClientUnsubscribe
from tidings_client.requests import AT_ONCE, Sending

_RETRY_S = 1.0


class ChannelLink(Protocol):
    """What channels need from their client."""

    clock: Clock

    @property
    def is_up(self) -> bool: ...

    def submit(self, message: ClientMessage, sending: Sending = AT_ONCE) -> "asyncio.Future[Any]": ...

    def on_channel_refused(self, channel: str, fault: TidingsError) -> None: ...

    def check_loop(self) -> None: ...


class Following:
    """A channel that is followed until `stop`; also a context manager."""

    def __init__(self, channels: "Channels", name: str) -> None:
        self._channels = channels
        self._name: str | None = name

    def stop(self) -> None:
        """Stop following. The channel is unsubscribed when its last follower stops."""
        if self._name is not None:
            self._channels.release(self._name)
        self._name = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Channels:
    """The channels of one client."""

    def __init__(self, link: ChannelLink) -> None:
        self._link = link
        self._followers: dict[str, int] = {}
        self._asked: set[str] = set()  # subscribed, or requested, on this connection
        self._scheduled = False

    @property
    def wanted(self) -> list[str]:
        """Channels with at least one follower."""
        return list(self._followers)

    def follow(self, name: str) -> Following:
        """Follow a channel, on every connection."""
        self._link.check_loop()
        self._followers[name] = self._followers.get(name, 0) + 1
        if self._link.is_up and not self._scheduled:
            # One request for all channels of the same turn, so that metrics and alerts get one snapshot.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._ask)
        return Following(self, name)

    def release(self, name: str) -> None:
        """Remove one follower."""
        self._link.check_loop()
        left = self._followers.get(name, 1) - 1
        if left > 0:
            self._followers[name] = left
            return
        self._followers.pop(name, None)
        if name in self._asked:
            self._asked.discard(name)
            if self._link.is_up:
                self._link.submit(ClientUnsubscribe(channels=[name]))

    def on_up(self) -> None:
        """A connection opened, without subscriptions: subscribe."""
        self._asked.clear()
        self._ask()

    def _ask(self) -> None:
        self._scheduled = False
        names = [name for name in self._followers if name not in self._asked]
        if names and self._link.is_up:
            self._subscribe(names)

    def _subscribe(self, names: Sequence[str]) -> None:
        self._asked.update(names)
        answer = self._link.submit(ClientSubscribe(channels=list(names)))
        answer.add_done_callback(lambda done: self._on_answer(names, done))

    def _on_answer(self, names: Sequence[str], answer: "asyncio.Future[Any]") -> None:
        fault = None if answer.cancelled() else answer.exception()
        if not isinstance(fault, TidingsError) or isinstance(fault, ConnectionLost):
            return
        if fault.retryable:
            self._asked.difference_update(names)
            delay = _RETRY_S if fault.retry_after is None else fault.retry_after
            self._link.clock.call_later(delay, self._ask)
        elif len(names) > 1:
            for name in names:
                self._subscribe([name])  # one of them is refused, not all
        else:
            self._link.on_channel_refused(names[0], fault)  # not requested again on this connection
