"""What the kernel counted on a TCP connection: nothing is counted for each message that is sent.

A leaf: the only place that knows `struct tcp_info` of Linux (include/uapi/linux/tcp.h).
"""

import socket
import struct
import sys
from typing import Any

# tcpi_bytes_received, and of what was sent tcpi_bytes_sent and tcpi_bytes_retrans (since Linux 4.19).
_RECEIVED, _SENT = 128, 200
_SIZE = 216


def bytes_of(sock: Any) -> tuple[int, int] | None:
    """Return the bytes that a transport's socket has received and sent (TLS and handshakes included).

    None where that is not known: another system, or a closed socket. What was sent again counts once.
    """
    if sys.platform != "linux" or sock is None or (descriptor := sock.fileno()) < 0:
        return None
    try:
        # A transport's own socket object may not have `getsockopt` (uvloop).
        with socket.socket(sock.family, sock.type, sock.proto, fileno=descriptor) as own:
            try:
                info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
            finally:
                own.detach()
    except OSError:
        return None
    if len(info) < _SIZE:
        return None
    received, (sent, sent_again) = (
        struct.unpack_from("=Q", info, _RECEIVED)[0],
        struct.unpack_from("=QQ", info, _SENT),
    )
    return received, sent - sent_again
