"""No part of a URL that is secret appears in the output of `tidings config`, `tidings check` and logs."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.logs.redaction import clean_text, clean_traceback, clean_urls
from services.settings import Settings
from tidings_cli.configuration import as_text

# Long enough, and of letters that nothing else here has: found when any part of it shows.
SECRET = st.text("XYZ", min_size=3, max_size=8)
NOISE = st.text("@/:?#,%&=;()[]'\"+-._~!$*", max_size=4)
PASSWORD = st.tuples(NOISE, SECRET, NOISE, SECRET, NOISE).map("".join)
HOST = st.sampled_from(["h", "127.0.0.1:4222", "[::1]:6379", "a.example:1,b.example:2", "hooks.example"])
BROKERS = st.sampled_from(
    ["nats", "tls", "redis", "rediss", "valkey", "redis+cluster", "rediss+sentinel", "mailto"]
)
ENDS = st.sampled_from(["", ",", ".", ")", '"', "/0", "/NAME/0", "/0?timeout=1"])

broker = st.builds("{}://u:{}@{}{}".format, BROKERS, PASSWORD, HOST, ENDS)
two_brokers = st.builds("{},{}".format, broker, broker)
by_login = st.builds("https://u:{}@{}/x".format, PASSWORD, st.just("hooks.example"))
by_path = st.builds("https://{}/{}".format, st.sampled_from(["hooks.example", "h:8443", "[::1]:1"]), PASSWORD)
by_query = st.builds("http://hooks.example/in?token={}".format, PASSWORD)
by_fragment = st.builds("http://hooks.example#{}".format, PASSWORD)
in_a_path_of_a_broker = st.builds("redis://h:1/0?password={}".format, SECRET)
URLS = st.one_of(broker, two_brokers, by_login, by_path, by_query, by_fragment, in_a_path_of_a_broker)


def hides(text: str) -> bool:
    return not any(letter in text for letter in "XYZ")


@given(
    url=URLS, before=st.sampled_from(["", "cannot reach ", '{"url":"']), after=st.sampled_from(["", " now"])
)
def test_no_secret_of_a_url_is_in_a_log_line(url: str, before: str, after: str) -> None:
    for clean in (clean_text, clean_traceback):
        said = clean(before + url + after)
        assert hides(said)
        assert said.startswith(before)
        assert said.endswith(after)


@given(url=URLS)
def test_cleaning_twice_changes_nothing(url: str) -> None:
    assert clean_urls(clean_urls(url)) == clean_urls(url)


without_scheme = st.one_of(
    st.builds("u:{}@{}".format, PASSWORD, HOST),
    st.builds("u:{}@{},nats://b:4222".format, PASSWORD, HOST),
    st.builds("hooks.example/services/{}".format, PASSWORD),
    st.builds("//hooks.example/{}".format, PASSWORD),
    st.builds("mailto:{}@h".format, PASSWORD),
)


@given(url=URLS | without_scheme)
def test_no_secret_of_a_url_is_in_the_configuration(url: str) -> None:
    settings = Settings.model_construct(
        **{
            name: field.get_default(call_default_factory=True)
            for name, field in Settings.model_fields.items()
        }
        | {
            "nats_url": url,
            "redis_url": url,
            "webhook_urls": [url],
            "presence_webhook_urls": [url],
            "alertmanager_urls": [url],
            "jwks_url": url,
            "jwks_issuers": {"issuer": url},
            "traces_endpoint": url,
            "external_url": url,
        }
    )
    for form in ("toml", "json"):
        assert hides(as_text(settings, form))  # type: ignore[arg-type]


def test_the_host_of_a_url_is_shown() -> None:
    for url, shown in {
        "redis://u:a/b@c@127.0.0.1:6379/0": "redis://***@127.0.0.1:6379/0",
        "rediss+sentinel://u:p@s1:1,s2:2/NAME/0": "rediss+sentinel://***@s1:1,s2:2/NAME/0",
        "nats://gw:ab/x@127.0.0.1:4222,nats://h2:4222": "nats://***@127.0.0.1:4222,nats://h2:4222",
        "https://hooks.slack.com/services/T0/B0/s": "https://hooks.slack.com/***",
        "https://x/hook?token=s": "https://x/***",
        "https://u:p@x": "https://***@x",
        "http://127.0.0.1:8080": "http://127.0.0.1:8080",
        "http://[::1]:8080/": "http://[::1]:8080/",
        "unix:///run/redis.sock?password=s": "unix:///run/redis.sock",
    }.items():
        assert clean_urls(url) == shown
    assert clean_text("see (https://idp/keys?k=s), or not") == "see (https://idp/***), or not"
    config = json.loads(as_text(Settings(webhook_urls=["https://h/secret"]), "json"))
    assert config["webhook_urls"] == ["https://h/***"]
    assert config["jwks_url"] == ""
    assert json.loads(as_text(Settings(nats_url="u:p@h:4222"), "json"))["nats_url"] == "***@h:4222"
    assert json.loads(as_text(Settings(nats_url="h:4222"), "json"))["nats_url"] == "h:4222"


def test_a_login_that_is_cut_off_is_hidden_as_well() -> None:
    assert "XYZ" not in clean_text("x" * 2000 + " nats://user:" + "XYZ" * 50 + "@host:4222")


@pytest.mark.timing
def test_many_urls_and_long_text_cost_little() -> None:
    for text in (
        "a://," * 5000,
        "a" * 20_000 + "://",
        "://" * 8000,
        "a://" + "." * 20_000,
        "a://h" + ",h" * 9000,
    ):
        began = time.thread_time()
        clean_traceback(text)
        assert time.thread_time() - began < 0.1
