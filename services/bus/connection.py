"""The nats-py client in use: opened, watched, and replaced when it has closed for good.

nats-py reconnects by itself, but gives up on most errors that the server reports (`-ERR`), and one of its tasks
may end by an error it does not expect. Then a new client takes over the subscriptions.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable

import structlog
from nats import errors as nats_errors

from services.backoff import Backoff
from services.bus.connect import ClientOptions, open_client
from services.bus.errors import BusError, Unavailable
from services.bus.nats_client import ClientState, LeanClient, Subscription
from services.bus.stats import BusStats
from services.servers import NatsAddress

_log = structlog.get_logger(__name__)
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
_ATTEMPT_S = 5.0
_FLUSH_S = 2.0
_CLOSE_S = 1.0

ClientHook = Callable[[LeanClient], Awaitable[None]]


class BusConnection:
    """Always one client, though not always the same, nor always connected.

    Callbacks are called synchronously and must not raise. `on_lost`: no answer will come to pending requests.
    `on_return`: connected again, with all subscriptions; what was published meanwhile was missed. `on_violation`: the
    server refused to `publish` to, or a `subscription` of, a subject (in lower case).
    """

    def __init__(
        self,
        address: NatsAddress,
        stats: BusStats,
        *,
        on_lost: Callable[[], None],
        on_return: Callable[[], None],
        on_violation: Callable[[str, str], None],
        name: str,
        ping_interval_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.client: LeanClient
        self._address = address
        self._on_lost = on_lost
        self._on_return = on_return
        self._on_violation = on_violation
        self._stats = stats
        self._options = ClientOptions(
            name=name,
            ping_interval_s=ping_interval_s,
            on_error=self._on_client_error,
            tls=tls,
            on_reconnected=self._on_client_reconnected,
        )
        self._backoff = Backoff()
        self._loop = asyncio.get_running_loop()
        self._subscriptions: set[Subscription] = set()
        self._hooks: list[ClientHook] = []
        self._replacing: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self, timeout_s: float) -> None:
        """Connect, trying again until `timeout_s` has passed.

        Raises:
            Misconfigured: trying again would not help.
            Unavailable: no server answered in time.
        """
        deadline = self._loop.time() + timeout_s
        while True:
            left = max(0.1, deadline - self._loop.time())
            try:
                client = await open_client(
                    self._address, self._options, self._backoff, self._stats, min(left, _ATTEMPT_S)
                )
                break
            except Unavailable as exc:
                delay = self._backoff.next_s()
                if self._loop.time() + delay > deadline:
                    raise Unavailable(f"{exc} (tried for {timeout_s:g} s)") from exc
                _log.info("bus waiting for server", reason=str(exc))
                await asyncio.sleep(delay)
        self._adopt(client)
        self._backoff.reset()
        _log.info("bus connected", server=self._address.shown, version=client.server_info.get("version"))

    async def close(self) -> None:
        """Send what is queued, briefly, and disconnect. Never raises."""
        self._closed = True
        for task in (self._replacing, self._settling):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        try:
            await self.client.barrier(_CLOSE_S)
        except Unavailable as exc:
            _log.info("bus closed unflushed", reason=str(exc))
        await self.client.close_now(_CLOSE_S)

    # --- what outlives a client ---

    def attach(self, subscription: Subscription) -> None:
        """Subscribe with this client and all that follow it."""
        self._subscriptions.add(subscription)
        self.client.attach(subscription)

    def detach(self, subscription: Subscription) -> None:
        """Unsubscribe; harmless when done before."""
        self._subscriptions.discard(subscription)
        self.client.detach(subscription)

    async def add_hook(self, hook: ClientHook) -> None:
        """Run `hook` with the client now, raising what it raises, and with each one that follows."""
        await hook(self.client)
        self._hooks.append(hook)

    def drop_hook(self, hook: ClientHook) -> None:
        """Run `hook` no more; harmless when it is not known."""
        if hook in self._hooks:
            self._hooks.remove(hook)

    # --- what the client reports ---

    def _on_client_state(self, state: ClientState) -> None:
        if state == "up":
            self._backoff.reset()  # the return is announced later, by `_on_client_reconnected`
        elif state == "down":
            self._stats.disconnects += 1
            _log.warning("bus disconnected", server=self._address.shown)
            self._on_lost()
        else:
            self._replace("the client closed for good")

    async def _on_client_reconnected(self) -> None:
        """Called by nats-py once subscriptions were replayed and a ping was answered."""
        self._stats.reconnects += 1
        _log.info("bus reconnected", server=self._address.shown)
        self._on_return()

    async def _on_client_error(self, error: Exception) -> None:
        """Called by nats-py from its read loop, which an exception would end: this only queues."""
        self._loop.call_soon(self._note_error, error)

    def _note_error(self, error: Exception) -> None:
        if isinstance(error, nats_errors.SlowConsumerError):
            self._stats.slow_consumers += 1
            _log.warning("bus slow consumer", subject=error.subject)
            return
        violation = _VIOLATION.search(str(error))
        if violation is None:
            self._stats.client_errors += 1
            _log.warning("bus client error", error=str(error) or type(error).__name__)
            return
        operation, subject = violation[1].lower(), violation[2]
        self._stats.permission_violations += 1
        _log.error("bus permission violation", operation=operation, subject=subject)
        self._on_violation(operation, subject)

    # --- replacing the client ---

    def check(self, *, silent: bool) -> None:
        """Replace the client if it can no longer help itself; leave a server that is `silent` where there are others.

        A machine that is gone without a word closes nothing, and nats-py's own pings take up to three intervals to
        notice. A single server is waited for: leaving it would not help.
        """
        if self.client.stuck:
            self._replace("the client is stuck")
        elif silent and self.client.up and self.client.knows_others:
            _log.warning("bus leaves a silent server")
            self.client.leave_server()

    def _replace(self, why: str) -> None:
        if not self._closed and self._replacing is None:
            _log.warning("bus rebuilding", reason=why)
            if self._settling is not None:
                self._settling.cancel()  # with a client that is given up
                self._settling = None
            self._on_lost()
            self._replacing = self._loop.create_task(self._replace_client())

    async def _replace_client(self) -> None:
        """Open a new client, however long it takes."""
        try:
            await self.client.close_now()
            client = await self._open_patiently()
            self._adopt(client)
            self._backoff.reset()
            self._stats.rebuilds += 1
            self._settling = self._loop.create_task(self._settle(client))
        finally:
            self._replacing = None

    async def _open_patiently(self) -> LeanClient:
        while True:
            await asyncio.sleep(self._backoff.next_s())
            try:
                return await open_client(self._address, self._options, self._backoff, self._stats, _ATTEMPT_S)
            except BusError as exc:  # wrong credentials too: they may be put right while we run
                self._stats.client_errors += 1
                _log.warning("bus rebuild failed", error=str(exc))

    def _adopt(self, client: LeanClient) -> None:
        self.client = client
        client.watcher = self._on_client_state
        for subscription in self._subscriptions:
            client.attach(subscription)

    async def _settle(self, client: LeanClient) -> None:
        """Run the hooks with a new client until each has succeeded, and announce the return.

        A server that is slow, or away again, is waited for: nothing else would announce the return.
        """
        backoff = Backoff()
        waiting = list(self._hooks)
        while True:
            if client.up:
                waiting = await self._run_hooks(client, [hook for hook in waiting if hook in self._hooks])
                if not waiting and await self._is_through(client):
                    break
            await asyncio.sleep(backoff.next_s())
        _log.info("bus rebuilt", server=self._address.shown)
        self._on_return()

    async def _run_hooks(self, client: LeanClient, hooks: list[ClientHook]) -> list[ClientHook]:
        """Return those that failed."""
        outcomes = await asyncio.gather(*(hook(client) for hook in hooks), return_exceptions=True)
        failed = []
        for hook, outcome in zip(hooks, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                _log.warning("bus not settled", error=repr(outcome))
                failed.append(hook)
        return failed

    async def _is_through(self, client: LeanClient) -> bool:
        """Whether the server has processed all that was sent, subscriptions among it."""
        try:
            await client.barrier(_FLUSH_S)
        except Unavailable as fault:
            _log.warning("bus not settled", error=repr(fault))
            return False
        return True
