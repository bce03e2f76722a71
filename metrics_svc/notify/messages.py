"""E-mail, chat and the rest, by URL, through `apprise` (the optional part `notify` of the distribution).

https://github.com/caronc/apprise/wiki names the services and how their URLs are written.
"""

import logging
from functools import partial
from typing import Any

from metrics_svc.notify.integrations import BlockingPool, DeliveryFailed
from metrics_svc.notify.notification import Notification, text, title

SEND_S = 30.0
# The library logs the URLs it is given, and they are secrets.
_LIBRARY_LOG = logging.getLogger("apprise")
_LIBRARY_LOG.propagate = False
_LIBRARY_LOG.addHandler(logging.NullHandler())


class AppriseUnavailable(Exception):
    """The library is not installed, or does not know the URL."""


class AppriseIntegration:
    """Sends messages as plain text to one apprise URL."""

    def __init__(self, url: str) -> None:
        """Prepare. Raises CannotSend."""
        try:
            import apprise  # optional, and slow to load
        except ImportError:
            raise AppriseUnavailable("install the optional part: pip install 'tidings[notify]'") from None
        self._types = apprise.NotifyType
        self._lane = BlockingPool()
        self._apprise: Any = apprise.Apprise()
        if not self._apprise.add(url):
            raise AppriseUnavailable("apprise does not know this kind of URL")

    async def send(self, notification: Notification) -> None:
        """Send one message. Raises DeliveryFailed."""
        kind = self._types.SUCCESS
        if notification.firing:
            critical = any(entry.type == "critical" for entry in notification.firing)
            kind = self._types.FAILURE if critical else self._types.WARNING
        notify = partial(
            self._apprise.notify, body=text(notification), title=title(notification), notify_type=kind
        )
        taken = await self._lane.call(notify, SEND_S)
        if not taken:
            # The library tells its log alone why, and what it says there may name the URL.
            raise DeliveryFailed("the service did not take it")

    async def close(self) -> None:
        """Take no more messages."""
        self._lane.close()
