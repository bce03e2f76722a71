"""Required versions of Redis, and its errors."""

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from presence_svc.script_queue import unavailable
from services.lifecycle import CannotStart
from services.redis_client import (
    check_server,
    close_redis,
    display_address,
    one_line,
    open_redis,
)
from services.servers import RedisAddress, parse_redis_url, parse_version
from services.settings import Settings


class Informed:
    """A Redis that only answers INFO."""

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
        open_redis(Settings(redis_url=url), "presence")


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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisAddress("", False, (("h", 6379),), None, None, "", 0)),
        ("valkeys://u:p%40@h:7/3", RedisAddress("", True, (("h", 7),), "u", "p@", "", 3)),
        (
            "rediss+cluster://:p@a:1,b",
            RedisAddress("cluster", True, (("a", 1), ("b", 6379)), None, "p", "", 0),
        ),
        (
            "redis+sentinel://u:p@a,[::1]:2/my%2Fmaster/5",
            RedisAddress("sentinel", False, (("a", 26379), ("::1", 2)), "u", "p", "my/master", 5),
        ),
    ],
)
def test_a_url_selects_the_kind_of_server(url: str, expected: RedisAddress):
    assert parse_redis_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://h", "redis://", "redis://a,b", "redis+cluster://a/1", "redis+sentinel://a", "redis://h/x",
        "redis+cluster://a:x", "redis://h/1/2",
    ],
)  # fmt: skip
def test_a_url_that_makes_no_sense_is_refused(url: str):
    with pytest.raises(ValueError, match=r".+"):
        parse_redis_url(url)
    with pytest.raises(CannotStart, match="TIDINGS_REDIS_URL"):
        open_redis(Settings(redis_url=url), "presence")


async def test_the_client_is_chosen_by_the_url(tmp_path):
    for url, kind in (
        ("redis://h", Redis),
        ("valkey://h", Redis),
        ("unix:///tmp/x.sock", Redis),
        ("rediss://h", Redis),
        ("redis+cluster://h", RedisCluster),
        ("rediss+cluster://h", RedisCluster),
        ("redis+sentinel://h/main", Redis),
    ):
        redis = open_redis(Settings(redis_url=url, redis_ca=tmp_path / "ca.pem"), "presence")
        assert type(redis) is kind, url
        await close_redis(redis)


async def logins(url: str, login: str) -> tuple[tuple[object, object], tuple[object, object]]:
    """Return how the Sentinels and how the master would be logged in at."""
    redis = open_redis(Settings(redis_url=url, redis_sentinel_login=login), "presence")
    pool = redis.connection_pool
    asked = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
    await close_redis(redis)
    return tuple((one.get("username"), one.get("password")) for one in (asked, pool.connection_kwargs))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("login", "at_sentinels"),
    [
        ("", ("u", "p")),
        ("none", (None, None)),
        (":other", (None, "other")),
        ("sentinel-user:a:b", ("sentinel-user", "a:b")),
    ],
)
async def test_sentinels_may_have_a_login_of_their_own(login, at_sentinels):
    assert await logins("redis+sentinel://u:p@h/home", login) == (at_sentinels, ("u", "p"))


@pytest.mark.parametrize("login", ["password", "user:", ":"])
def test_a_login_that_is_none_is_refused(login):
    with pytest.raises(CannotStart, match="TIDINGS_REDIS_SENTINEL_LOGIN"):
        open_redis(Settings(redis_url="redis+sentinel://h/home", redis_sentinel_login=login), "presence")


@pytest.mark.parametrize(
    ("url", "spoken"),
    [
        ("redis://u:secret@h", "h:6379"),
        ("redis+cluster://:secret@a:1,[::1]:2", "a:1, [::1]:2"),
        ("rediss+sentinel://u:secret@a,b:1/home/2", "home of Sentinels a:26379, b:1"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_spoken_without_its_secrets(url, spoken):
    assert display_address(url) == spoken


async def test_missing_sentinels_are_reported_in_one_line():
    redis = open_redis(Settings(redis_url="redis+sentinel://127.0.0.1:1/home"), "presence")
    with pytest.raises(ConnectionError) as caught:
        await redis.ping()
    assert one_line(caught.value) == "No master found for 'home'"
    await close_redis(redis)
