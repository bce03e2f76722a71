"""NATS and Redis as in production, and a deployment on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nats_cluster import NatsCluster
from tests.support.requires import need


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow the time that elections take, several times over."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(150))


@pytest.fixture(scope="module")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three NATS servers; a test that kills one starts it again."""
    need("nats-server")
    with NatsCluster(tmp_path_factory.mktemp("nats-cluster"), password="secret") as running:
        yield running
