"""Finds out which rooms and channels a stream may have, where the server only refuses all of them at once. Pure."""

from collections.abc import Mapping

from tidings_client.errors import TidingsError
from tidings_client.transport.base import Interest

# What a stream asks for, one piece: a room, or a channel.
_Piece = tuple[str, str]


class Trial:
    """What was admitted, what was refused; and whether new pieces are asked for one by one."""

    def __init__(self) -> None:
        self._admitted: set[_Piece] = set()
        self._refused: dict[_Piece, TidingsError] = {}
        self._one_by_one = False

    @property
    def refused_rooms(self) -> Mapping[str, TidingsError]:
        """Rooms that are not for this user, and why."""
        return {name: fault for (kind, name), fault in self._refused.items() if kind == "room"}

    @property
    def refused_channels(self) -> Mapping[str, TidingsError]:
        """Channels that are not for this user, and why."""
        return {name: fault for (kind, name), fault in self._refused.items() if kind == "channel"}

    def pardon(self, room: str) -> None:
        """A room is asked for anew: it may be refused no more."""
        self._refused.pop(("room", room), None)

    def choose(self, wanted: Interest) -> Interest:
        """Return what to ask for now."""
        pieces = self._hopeful(wanted)
        if self._one_by_one:
            new = [piece for piece in pieces if piece not in self._admitted]
            pieces = [piece for piece in pieces if piece in self._admitted or piece in new[:1]]
        rooms = {name: wanted.rooms[name] for kind, name in pieces if kind == "room"}
        return Interest(rooms, [name for kind, name in pieces if kind == "channel"], wanted.inbox)

    def on_admitted(self, asked: Interest, wanted: Interest) -> bool:
        """The stream opened; say whether there is more to ask for."""
        self._admitted.update(_pieces(asked))
        self._one_by_one = self._one_by_one and not set(self._hopeful(wanted)) <= self._admitted
        return self._one_by_one

    def on_refused(self, asked: Interest, fault: TidingsError) -> bool:
        """The stream was refused; say whether it is worth asking for something else."""
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
