"""Sockets that a fan-out may write to directly, past their transports (ADR 0008).

A fan-out to a thousand members is a thousand system calls, and each evicts most of the processor's cache. So the loop
over a large room touches only a descriptor and one byte of this table for each member: the way to each transport,
through its connection, costs more than the rest of the loop.

Descriptors are reused. Each owner of one gets a generation, and a direct write requires the current one: a stale list
of members never writes to the socket of another client.

A leaf: the fan-out and the WebSocket protocol share this table, and neither imports the other.
"""

FdRef = tuple[int, int]  # descriptor and generation

# By descriptor: the generation of its owner while the transport's buffer is known to be empty, so that direct writes
# keep their order; 0 if the transport must write.
direct_generation = bytearray(1024)
_generations = bytearray(1024)

# Sentinel for members without a socket (TLS, SSE). Descriptor 0 is never assigned.
NO_FD: FdRef = (0, 1)


def acquire(descriptor: int) -> FdRef:
    """Assign a descriptor to its new owner; its transport writes first.

    A process without standard input may have a client at descriptor 0, which is NO_FD here: its transport always
    writes.
    """
    if descriptor <= 0:
        return NO_FD
    missing = descriptor + 1 - len(direct_generation)
    if missing > 0:
        direct_generation.extend(bytes(missing + 1024))
        _generations.extend(bytes(missing + 1024))
    direct_generation[descriptor] = 0
    generation = _generations[descriptor] = _generations[descriptor] % 255 + 1
    return descriptor, generation
