"""What only the kernel knows of a connection."""

import asyncio
import fcntl
import struct
import termios


def unacknowledged_bytes(transport: asyncio.BaseTransport) -> int:
    """How much was handed to the kernel and has not reached the other side; 0 where that cannot be told."""
    connection = transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError, ValueError):  # closed meanwhile, or a system that does not tell
        return 0
    return int(struct.unpack("i", answer)[0])
