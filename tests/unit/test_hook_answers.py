"""Answers of applications as they come, and how long they are kept."""

import msgspec
import pytest

from gateway.hooks.cache import AnswerCache, key_of
from gateway.hooks.messages import (
    MAX_MESSAGE_LENGTH,
    AnswerT,
    ConnectAnswer,
    HookAnswerInvalid,
    HookRefused,
    JoinAnswer,
    PublishAnswer,
    RpcAnswer,
    decode_answer,
    is_given,
)


def answer(text: str, type_: type[AnswerT]) -> AnswerT:
    decoded, _ = decode_answer(text.encode(), type_)
    assert not isinstance(decoded, HookRefused)
    return decoded


def refusal(text: str) -> HookRefused:
    decoded, _ = decode_answer(text.encode(), PublishAnswer)
    assert isinstance(decoded, HookRefused)
    return decoded


@pytest.mark.parametrize(
    ("text", "type_", "field"),
    [
        ('{"userId": 3}', ConnectAnswer, "userId"),
        ('{"userId": "a", "rooms": ["x", 3]}', ConnectAnswer, "rooms[1]"),
        ('{"userId": "a", "grants": []}', ConnectAnswer, "grants"),
        ('{"userId": "a", "expiresAt": "soon"}', ConnectAnswer, "expiresAt"),
        ('{"ttl": 86401}', JoinAnswer, "ttl"),
        ('{"history": -1}', JoinAnswer, "history"),
        ('{"skip": 1}', PublishAnswer, "skip"),
        ("{}", RpcAnswer, ""),
        ("[]", PublishAnswer, ""),
        ("null", PublishAnswer, ""),
        ("", PublishAnswer, ""),
        ("{} {}", PublishAnswer, ""),
        ('{"content": NaN}', PublishAnswer, ""),
        ('{"content": ' + "[" * 50_000, PublishAnswer, ""),
    ],
)
def test_a_wrong_answer_names_its_field(text: str, type_: type[ConnectAnswer], field: str) -> None:
    with pytest.raises(HookAnswerInvalid) as caught:
        decode_answer(text.encode(), type_)
    assert caught.value.field == field
    assert field in str(caught.value)


def test_bytes_that_are_not_utf8_are_no_answer() -> None:
    with pytest.raises(HookAnswerInvalid):
        decode_answer(b'{"userId": "\xff"}', ConnectAnswer)


def test_unknown_fields_are_ignored_and_null_is_absent() -> None:
    connect = answer(
        '{"userId": "a", "grants": null, "customData": null, "rooms": null, "new": {}}', ConnectAnswer
    )
    assert (connect.user_id, connect.grants, connect.rooms, connect.expires_at_s) == ("a", None, None, None)
    assert not is_given(connect.custom_data)
    assert is_given(answer('{"content": false}', PublishAnswer).content)
    assert bytes(answer('{"data": null}', RpcAnswer).data) == b"null"  # what a call returns may be anything


@pytest.mark.parametrize(
    ("given", "seconds"), [("1800000000", 1.8e9), ("1800000000000", 1.8e9), ("1.8e12", 1.8e9)]
)
def test_an_expiry_is_in_milliseconds_or_as_in_tokens(given: str, seconds: float) -> None:
    assert answer(f'{{"expiresAt": {given}}}', ConnectAnswer).expires_at_s == seconds


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('{"refuse": {"code": "too_young", "message": "not yet"}}', "too_young", "not yet"),
        ('{"refuse": {"message": "no"}, "content": 1, "skip": 7}', "refused", "no"),
        ('{"refuse": {}}', "refused", "the application refused"),
        ('{"refuse": {"code": null, "message": null}}', "refused", "the application refused"),
        ('{"refuse": {"code": "Bad Code"}}', "refused", "the application refused"),
        ('{"refuse": true}', "refused", "the application refused"),
        ('{"refuse": {"message": 3}}', "refused", "the application refused"),
        ('{"refuse": "no"}', "refused", "the application refused"),
    ],
)
def test_a_refusal_refuses_however_it_is_written(text: str, code: str, message: str) -> None:
    refused = refusal(text)
    assert (refused.code, refused.message) == (code, message)
    assert (refused.spec.code, refused.spec.retryable, refused.spec.http_status) == (code, False, 403)


def test_a_long_text_is_cut() -> None:
    assert len(refusal('{"refuse": {"message": "%s"}}' % ("x" * 5000)).message) == MAX_MESSAGE_LENGTH


def test_a_kept_answer_is_used_until_its_time_is_over() -> None:
    cache: AnswerCache[str] = AnswerCache()
    key = key_of("ann", {"a": 1, "b": msgspec.Raw(b"[1]")})
    assert key == key_of("ann", {"b": msgspec.Raw(b"[1]"), "a": 1})
    assert key != key_of("ann", {"a": 1, "b": msgspec.Raw(b"[2]")})
    cache.put(key, "yes", 10.0, 5)
    assert cache.get(key, 9.9) == "yes"
    assert cache.get(key_of("bob"), 0.0) is None
    assert cache.get(key, 10.0) is None
    assert len(cache) == 0


def test_what_was_used_least_recently_goes_first() -> None:
    cache: AnswerCache[int] = AnswerCache(max_entries=3)
    for number in range(3):
        cache.put(key_of(number), number, 10.0, 5)
    assert cache.get(key_of(0), 0.0) == 0
    cache.put(key_of(3), 3, 10.0, 5)
    assert [cache.get(key_of(number), 0.0) for number in range(4)] == [0, None, 2, 3]


def test_the_bytes_of_all_kept_answers_are_limited() -> None:
    cache: AnswerCache[int] = AnswerCache(max_bytes=1000)
    for number in range(10):
        cache.put(key_of(number), number, 10.0, 300)
    assert len(cache) == 2
    cache.put(key_of(99), 99, 10.0, 5000)  # larger than all together may be
    assert len(cache) == 0
