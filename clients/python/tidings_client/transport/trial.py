"""Finds out which rooms and channels of a stream are refused, since the server only refuses the whole stream. Pure."""

from collections.abc import Mapping

from tidings_client.errors import TidingsError
from tidings_client.transport.base import Interest

# One room or channel of a stream: its kind and name.
_Piece = tuple[str, str]


class Trial:
    """Admitted and refused pieces, and whether new ones are requested one by one."""

    def __init__(self) -> None:
        self._admitted: set[_Piece] = set()
        self._refused: dict[_Piece, TidingsError] = {}
        self._one_by_one = False

    @property
    def refused_rooms(self) -> Mapping[str, TidingsError]:
        """Refused rooms, with the errors."""
        return {name: fault for (kind, name), fault in self._refused.items() if kind == "room"}

    @property
    def refused_channels(self) -> Mapping[str, TidingsError]:
        """Refused channels, with the errors."""
        return {name: fault for (kind, name), fault in self._refused.items() if kind == "channel"}

    def pardon(self, room: str) -> None:
        """The application joins a room again: it may be admitted now."""
        self._refused.pop(("room", room), None)

    def choose(self, wanted: Interest) -> Interest:
        """Return what to request now."""
        pieces = self._hopeful(wanted)
        if self._one_by_one:
            new = [piece for piece in pieces if piece not in self._admitted]
            pieces = [piece for piece in pieces if piece in self._admitted or piece in new[:1]]
        rooms = {name: wanted.rooms[name] for kind, name in pieces if kind == "room"}
        return Interest(rooms, [name for kind, name in pieces if kind == "channel"], wanted.inbox)

    def on_admitted(self, asked: Interest, wanted: Interest) -> bool:
        """The stream opened. Returns whether there is more to request."""
        self._admitted.update(_pieces(asked))
        self._one_by_one = self._one_by_one and not set(self._hopeful(wanted)) <= self._admitted
        return self._one_by_one

    def on_refused(self, asked: Interest, fault: TidingsError) -> bool:
        """The stream was refused. Returns whether to request something else."""
        pieces = _pieces(asked)
        new = [piece for piece in pieces if piece not in self._admitted]
        if len(new) == 1:
            self._refused[new[0]] = fault
        elif not new:  # what was admitted is not any more
            self._admitted.clear()
        self._one_by_one = True
        return bool(pieces)

    def _hopeful(self, wanted: Interest) -> list[_Piece]:
        return [piece for piece in _pieces(wanted) if piece not in self._refused]


def _pieces(interest: Interest) -> list[_Piece]:
    return [*(("room", name) for name in interest.rooms), *(("channel", name) for name in interest.channels)]
