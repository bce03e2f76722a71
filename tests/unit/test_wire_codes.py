"""The table of codes: numbers say what the client does next."""

from services.wire.codes import CloseCode, ErrorCode


def test_close_codes_by_their_ranges() -> None:
    numbers = [code.number for code in CloseCode]
    assert len(set(numbers)) == len(numbers)
    for code in CloseCode:
        assert 1000 <= code.number <= 1015 or 4000 <= code.number <= 4999
        if code.number >= 4000:
            assert code.value.reconnect is (code.number < 4500), code
        assert len(code.value.reason.encode()) <= 123  # what fits a close frame (RFC 6455 §5.5)


def test_error_codes_are_distinct_and_retryable_or_not() -> None:
    names = [code.code for code in ErrorCode]
    assert len(set(names)) == len(names)
    assert {code.code for code in ErrorCode if code.retryable} == {"rate_limited", "unavailable", "internal"}
    assert all(400 <= code.value.http_status < 600 for code in ErrorCode)
