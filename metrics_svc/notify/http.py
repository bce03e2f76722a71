"""Posting JSON to a receiver, and what is known when that fails."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Any

from metrics_svc.notify.outlet import DeliveryFailed, Lane

# For each step of an attempt (connecting, sending, the answer), and for the whole.
STEP_S = 5.0
ATTEMPT_S = 10.0


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: a POST would become a GET, which is answered with 200 and has delivered nothing."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_StayHere())


async def post_json(lane: Lane, url: str, data: bytes, headers: Mapping[str, str]) -> None:
    """Post JSON on a receiver's own threads; any answer of 2xx means that it was taken.

    Raises:
        DeliveryFailed: the receiver is not there, refuses, sends elsewhere, or does not answer in `ATTEMPT_S`.
    """
    await lane.call(partial(_post, url, data, headers), ATTEMPT_S)


def _post(url: str, data: bytes, headers: Mapping[str, str]) -> None:
    if not url.startswith(("http://", "https://")):
        raise DeliveryFailed("not an http or https URL")
    try:
        request = urllib.request.Request(  # noqa: S310  # checked above
            url, data, {"Content-Type": "application/json", "User-Agent": "tidings", **headers}
        )
        with _opener.open(request, timeout=STEP_S):
            return  # the status says it all; the rest of the answer is of no interest
    except urllib.error.HTTPError as fault:
        with fault:
            raise DeliveryFailed(f"HTTP {fault.code}") from None
    except urllib.error.URLError as fault:
        # Raised before anything was sent: no such name, no such server, no TLS.
        raise DeliveryFailed(str(fault.reason)) from None
    except (OSError, http.client.HTTPException) as fault:
        raise DeliveryFailed(str(fault) or type(fault).__name__, perhaps=True) from None
    except ValueError as fault:
        raise DeliveryFailed(str(fault)) from None
