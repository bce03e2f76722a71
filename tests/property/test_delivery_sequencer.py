"""Every message once and in order, after any losses, repeats and partial answers."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.sequencer import Sequencer


@st.composite
def logs(draw: st.DrawFn) -> list[int]:
    """Sequences of one log in a stream shared with others, ascending."""
    return sorted(draw(st.sets(st.integers(1, 200), max_size=40)))


@given(logs(), st.data())
def test_each_message_once_and_in_order(log: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 200), label="position when opened")
    sequencer: Sequencer[int] = Sequencer(0, filling=True)
    delivered: list[int] = []
    stored: list[int] = [seq for seq in log if seq <= start]
    sequencer.position = start
    delivered += sequencer.on_filled([], complete=True)

    def fill() -> None:
        limit = data.draw(st.integers(1, 5), label="batch")
        found = [seq for seq in stored if seq > sequencer.position]
        batch = [(seq, seq) for seq in found[:limit]]
        delivered.extend(sequencer.on_filled(batch, complete=len(found) <= limit))

    for index, seq in enumerate(log):
        if seq <= start:
            continue
        stored.append(seq)
        previous = log[index - 1] if index else 0
        for _ in range(data.draw(st.integers(0, 2), label="times heard")):
            gone = sequencer.unsure and data.draw(st.booleans(), label="the one before is gone by now")
            delivered.extend(sequencer.on_live(seq, 0 if gone else previous, seq))
            if not sequencer.unsure and not sequencer.filling and sequencer.position == seq:
                assert delivered == [one for one in stored if one > start], "it went on without what was lost"
        if stored and data.draw(st.booleans(), label="an old one again"):
            old = data.draw(st.integers(0, len(stored) - 1))
            before = log[log.index(stored[old]) - 1] if log.index(stored[old]) else 0
            delivered.extend(sequencer.on_live(stored[old], before, stored[old]))
        if data.draw(st.integers(0, 9), label="the bus was away") == 0:
            sequencer.mark_gap()
        if data.draw(st.booleans(), label="the bus is back, or another leads"):
            delivered.extend(sequencer.resume())
        if sequencer.unsure and not sequencer.filling and data.draw(st.booleans(), label="looked at"):
            if max(stored) > sequencer.position:
                sequencer.mark_gap()
            else:
                delivered.extend(sequencer.on_filled([], complete=True))
        if sequencer.filling and data.draw(st.booleans(), label="a fill is done"):
            fill()
    sequencer.mark_gap()
    while sequencer.filling:
        fill()
    assert not sequencer.unsure
    assert delivered == [seq for seq in log if seq > start]


def test_a_message_with_nothing_before_it_proves_nothing_where_the_log_was_empty() -> None:
    """The first message of a new stream may have been lost, and gone by the time the second one came."""
    sequencer: Sequencer[int] = Sequencer(0)
    sequencer.mark_gap()
    assert sequencer.resume() == []
    assert sequencer.on_live(2, 0, 2) == []
    assert sequencer.on_filled([(1, 1), (2, 2)], complete=True) == [1, 2]


def test_each_message_that_waited_has_to_name_the_one_before_it() -> None:
    """That one of them did says nothing of those that came after it."""
    sequencer: Sequencer[int] = Sequencer(2)
    sequencer.mark_gap()
    assert sequencer.on_live(3, 2, 3) == []
    assert sequencer.on_live(5, 0, 5) == []
    assert sequencer.resume() == [3]
    assert sequencer.on_filled([(4, 4), (5, 5)], complete=True) == [4, 5]


@given(logs(), st.integers(0, 3))
def test_more_than_can_wait_is_read_from_the_stream(log: list[int], held: int) -> None:
    sequencer: Sequencer[int] = Sequencer(0, filling=True)
    import gateway.delivery.sequencer as module

    limit, module.MAX_HELD = module.MAX_HELD, held
    try:
        delivered: list[int] = []
        previous = 0
        for seq in log:
            delivered += sequencer.on_live(seq, previous, seq)
            previous = seq
        while sequencer.filling:
            found = [(seq, seq) for seq in log if seq > sequencer.position]
            delivered += sequencer.on_filled(found, complete=True)
        assert delivered == log
    finally:
        module.MAX_HELD = limit
