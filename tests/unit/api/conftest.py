"""The HTTP API without a network: answers of other processes are in `deps.answers`."""

from collections.abc import AsyncIterator

import httpx
import pytest

from services.bus import rpc
from services.settings import Settings
from tests.support.api import FakeDeps, api_client


@pytest.fixture
def deps(monkeypatch: pytest.MonkeyPatch) -> FakeDeps:
    """What the routes are given, with default settings."""
    deps = FakeDeps(Settings())
    monkeypatch.setattr(rpc, "call", deps.ask)
    return deps


@pytest.fixture
async def client(deps: FakeDeps) -> AsyncIterator[httpx.AsyncClient]:
    """A client of these routes."""
    async with api_client(deps) as client:
        yield client
