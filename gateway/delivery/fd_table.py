"""Which sockets hold nothing back, so that a fan-out may write to them beside their transports.

A fan-out to a thousand members is a thousand system calls, and between two of them the processor's cache has forgotten
nearly everything. So the loop over a large room touches nothing that belongs to one member but a descriptor and one byte here;
asking each member's transport, through its connection, costs more than the rest of the loop.

Descriptors are used again. Each owner of one gets a turn, and only who knows the turn finds the socket free: a list of
members that has outlived one of them sends its messages to nobody, not to a stranger.
"""

Direct = tuple[int, int]  # descriptor and turn

# By descriptor: the turn of its owner, where the transport is known to hold nothing and whoever may write there writes past
# it; 0 where the transport has to be asked.
free = bytearray(1024)
_turns = bytearray(1024)

# Of those that have no socket of their own; the first descriptor is never anybody's, so it is never free.
NOWHERE: Direct = (0, 1)


def take(descriptor: int) -> Direct:
    """Give a descriptor to its new owner; its transport has to be asked first.

    A process that was started without standard input may have a client at descriptor 0, which is NOWHERE here: its
    transport is asked each time.
    """
    if descriptor <= 0:
        return NOWHERE
    missing = descriptor + 1 - len(free)
    if missing > 0:
        free.extend(bytes(missing + 1024))
        _turns.extend(bytes(missing + 1024))
    free[descriptor] = 0
    turn = _turns[descriptor] = _turns[descriptor] % 255 + 1
    return descriptor, turn
