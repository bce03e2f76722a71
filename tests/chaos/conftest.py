"""One deployment for all chaos tests, healed after each: a new one takes longer to start than most faults."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.load import StartLoad, under_load
from tests.support.cluster import CHAOS_SETTINGS, Cluster
from tests.support.requires import need


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and allow it the time that faults take."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timing)  # what a failure does to users is stated in seconds
            item.add_marker(pytest.mark.timeout(150))


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need("nats-server")
    need("redis-server")
    with Cluster(tmp_path_factory.mktemp("deployment"), **CHAOS_SETTINGS) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def cluster(deployment: Cluster) -> AsyncIterator[Cluster]:
    """The deployment, whole; whatever the test breaks is mended afterwards."""
    yield deployment
    await deployment.heal()


@pytest.fixture
def load(cluster: Cluster, tmp_path: Path) -> StartLoad:
    """Return a function that puts load on the deployment: `async with load() as running`."""
    return partial(under_load, cluster.urls, tmp_path / "history.jsonl")
