"""Answers as JSON."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

_encoder = msgspec.json.Encoder()


class JsonResponse(Response):
    """Any wire object, or list of them, as JSON. Not cached: what it says is true now."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            _encoder.encode(content), status, headers={"cache-control": "no-store", **(headers or {})}
        )
