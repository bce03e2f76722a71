"""Which Redis is good enough, and what its faults mean."""

import pytest
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from presence_svc.redis_link import check_server, open_redis, parse_version
from presence_svc.scripts import unavailable
from services.lifecycle import CannotStart
from services.settings import Settings


class Informed:
    """A Redis that only knows what INFO says."""

    def __init__(self, **info: object) -> None:
        self._info = info

    async def info(self) -> dict[str, object]:
        return self._info


@pytest.mark.parametrize(
    ("text", "version"),
    [("7.2.4", (7, 2, 4)), ("6.2.0-rc1", (6, 2, 0)), ("255.255.255", (255,) * 3), ("", ()), ("unstable", ())],
)
def test_versions_are_read_as_numbers(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize("version", ["6.2.0", "7.2.4", "8.2.3", "10.0"])
async def test_new_enough_servers_pass(version):
    await check_server(Informed(redis_version=version))


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", ""])
async def test_older_servers_are_refused_with_the_version_needed(version):
    with pytest.raises(CannotStart, match=r"6\.2 or later"):
        await check_server(Informed(redis_version=version))


@pytest.mark.parametrize("url", ["", "http://x", "localhost:6379"])
def test_urls_that_cannot_be_understood_are_refused(url):
    with pytest.raises(CannotStart, match="TIDINGS_REDIS_URL"):
        open_redis(Settings(redis_url=url))


@pytest.mark.parametrize(
    "fault",
    [
        ConnectionError("refused"),
        TimeoutError("late"),
        BusyLoadingError("loading"),
        ReadOnlyError("replica"),
        OutOfMemoryError("full"),
        ResponseError("BUSY Redis is busy running a script"),
        ResponseError("MISCONF cannot persist"),
    ],
)
def test_faults_that_pass_mean_unavailable(fault: RedisError):
    assert "redis" in str(unavailable(fault))


def test_faults_of_a_script_are_ours():
    assert unavailable(ResponseError("ERR user_script:3: attempt to index a nil value")) is None
