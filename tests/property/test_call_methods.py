"""Names of methods: none reaches another subject than its own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.identity import Identity
from gateway.client.commands import ClientState, CommandError
from gateway.delivery.streams import route_of
from services.bus.message import check_publishable
from services.permissions import Role
from services.permissions.nats import answerer_of, subjects_of
from services.settings import Settings
from services.wire.client import RpcCommand
from services.wire.codes import ErrorCode
from services.wire.grants import ALL
from services.wire.names import is_method
from services.wire.subjects import SERVICES
from tests.support.nats_subjects import matches
from tests.support.properties import examples

CHOSEN = Settings(prefix="p", message_rate=0)
FUZZ = settings(max_examples=examples(500))

PIECES = st.sampled_from([*SERVICES, "orders", "a-b_c", "Z9", ".", "..", "*", ">", " ", "\n", "\r\n", "\x00", "$", "é", "٣", "/", "=", "p.in.room", "x" * 64])  # fmt: skip
NAMES = st.one_of(
    st.lists(PIECES, max_size=6).map("".join), st.text(max_size=70), st.from_regex(r"[\w.-]{1,70}")
)


@FUZZ
@given(NAMES)
def test_a_name_is_refused_or_is_one_subject_below_the_methods(name: str) -> None:
    one = ClientState(Identity("u", "U", ALL), CHOSEN, lambda room: route_of(CHOSEN, {}, room), 0.0)
    if not is_method(name):
        with pytest.raises(CommandError) as refused:
            one.check(RpcCommand(method=name), 0.0)
        assert refused.value.code is ErrorCode.INVALID_FIELD
        return
    assert one.check(RpcCommand(method=name), 0.0) == RpcCommand(method=name)
    assert name.isascii()
    assert len(name) <= 64
    subject = CHOSEN.subjects.rpc(name)
    check_publishable(subject)
    assert subject.removeprefix("p.rpc.") == name
    if name.partition(".")[0] in SERVICES:
        return  # never called: `tests/unit/test_calls.py`
    assert answerer_of(subject, "p") == Role.APP
    for role in set(Role) - {Role.APP}:
        assert not any(matches(heard, subject) for heard in subjects_of(role, CHOSEN, rolling=True).subscribe)
