"""The nats-py client in use: opened, watched, and replaced when it has closed for good.

nats-py reconnects by itself, but gives up on most errors that the server reports (`-ERR`), and one of its tasks
may end by an error it does not expect. Then a new client takes over the subscriptions.

nats-py's own first connect never gives up when reconnects are unlimited, not even on a wrong password. So a client is
opened by single attempts, and reconnects for ever afterwards.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from nats import errors as nats_errors
from nats.aio.client import Server

from services.backoff import Backoff
from services.bus.connect import check_version, explain_failure, nats_address, tls_context
from services.bus.errors import BusError, Unavailable
from services.bus.nats_client import ClientState, LeanClient, Subscription
from services.bus.stats import BusStats
from services.settings import Settings

_log = structlog.get_logger(__name__)
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
_ATTEMPT_S = 5.0  # all servers of the address
_SERVER_S = 2.0
_FLUSH_S = 2.0
_CLOSE_S = 1.0

ClientHook = Callable[[LeanClient], Awaitable[None]]


class BusConnection:
    """Always one client, though not always the same, nor always connected.

    Callbacks are synchronous and must not raise. `on_lost`: pending requests get no reply. `on_return`: connected again,
    with all subscriptions; messages published meanwhile were missed. `on_violation`: the server refused a `publish` or
    `subscription` (first argument) on a subject (second, in lower case).
    """

    def __init__(
        self,
        settings: Settings,
        stats: BusStats,
        *,
        on_lost: Callable[[], None],
        on_return: Callable[[], None],
        on_violation: Callable[[str, str], None],
        name: str,
        ping_interval_s: float,
    ) -> None:
        self.client: LeanClient
        self._address = nats_address(settings)
        self._tls = tls_context(settings)
        self._name = name
        self._ping_interval_s = ping_interval_s
        self._on_lost = on_lost
        self._on_return = on_return
        self._on_violation = on_violation
        self._stats = stats
        self._backoff = Backoff()
        self._loop = asyncio.get_running_loop()
        self._subscriptions: set[Subscription] = set()
        self._optional: dict[str, Subscription] = {}  # by subject in lower case
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
                self._adopt(await self._attempt(min(left, _ATTEMPT_S)))
                break
            except Unavailable as exc:
                delay = self._backoff.next_s()
                if self._loop.time() + delay > deadline:
                    raise Unavailable(f"{exc} (tried for {timeout_s:g} s)") from exc
                _log.info("bus waiting for server", reason=str(exc))
                await asyncio.sleep(delay)
        self._backoff.reset()
        _log.info("bus connected", server=self._address.shown, version=self.client.server_info.get("version"))

    async def _attempt(self, timeout_s: float) -> LeanClient:
        """Try each server once, and return a client that reconnects for ever.

        Raises:
            Misconfigured: credentials or certificate refused, TLS not offered, or the server is too old.
            Unavailable: nothing answered in time.
        """
        client = LeanClient(self._stats)
        reports: list[Exception] = []

        def pick_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
            """Return a random server and the delay before it, as nats-py asks while it reconnects."""
            return random.choice(servers), self._backoff.next_s()

        async def on_error(error: Exception) -> None:
            """Called by nats-py from its read loop, which an exception would end: this only queues."""
            if client.watcher is None:
                reports.append(error)
            else:
                self._loop.call_soon(self._note_error, error)

        try:
            await asyncio.wait_for(
                client.connect(
                    servers=self._address.servers,
                    user=self._address.user,
                    password=self._address.password,
                    token=self._address.token,
                    name=self._name,
                    tls=self._tls,
                    error_cb=on_error,
                    reconnected_cb=self._on_client_reconnected,
                    reconnect_to_server_handler=pick_server,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=_SERVER_S,  # type: ignore[arg-type]  # nats-py says int, asyncio takes it
                    ping_interval=self._ping_interval_s,  # type: ignore[arg-type]  # as above
                    max_outstanding_pings=2,
                    pending_size=0,  # what is published while down is refused, not sent late
                ),
                timeout_s,
            )
            check_version(str(client.server_info.get("version", "")))
        except (OSError, nats_errors.Error) as exc:  # TimeoutError is an OSError
            await client.close_now()
            cause = reports[-1] if reports and isinstance(exc, nats_errors.NoServersError) else exc
            raise explain_failure(cause, self._address) from exc
        except BaseException:
            await client.close_now()
            raise
        client.reconnect_forever()
        return client

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

    def attach(self, subscription: Subscription, optional: str = "") -> None:
        """Subscribe with this client and all that follow it. `optional` is the subject, where a refusal is no fault."""
        self._subscriptions.add(subscription)
        if optional:
            self._optional[optional.lower()] = subscription
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
        if operation == "subscription" and subject.lower() in self._optional:
            _log.info("bus subscription not permitted, and not needed", subject=subject)
            self.detach(self._optional.pop(subject.lower()))
            return
        self._stats.permission_violations += 1
        _log.error("bus permission violation", operation=operation, subject=subject)
        self._on_violation(operation, subject)

    # --- replacing the client ---

    def check(self, *, silent: bool) -> None:
        """Replace a client that is stuck; leave a `silent` server where there are others.

        A machine that vanishes closes no connection, and nats-py's own pings take up to three intervals to notice.
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
                return await self._attempt(_ATTEMPT_S)
            except BusError as exc:  # wrong credentials too: they may be put right while we run
                self._stats.client_errors += 1
                _log.warning("bus rebuild failed", error=str(exc))

    def _adopt(self, client: LeanClient) -> None:
        self.client = client
        client.watcher = self._on_client_state
        for subscription in self._subscriptions:
            client.attach(subscription)

    async def _settle(self, client: LeanClient) -> None:
        """Run the hooks with a new client until each has succeeded, however long that takes; announce the return."""
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
