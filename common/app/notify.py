"""systemd's notification protocol, sd_notify(3), by hand: datagrams of KEY=value lines to the socket named by $NOTIFY_SOCKET."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def sd_notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whoever started this process; True when the message was taken, False when nobody listens. Never waits, never raises."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
        try:
            out.sendto("\n".join(lines).encode(), address)
        except OSError:
            return False
    return True


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life: half of what systemd allows (sd_watchdog_enabled(3)); None: it expects none of this process."""
    allowed = environ.get("WATCHDOG_USEC", "")
    if not allowed.isdecimal() or int(allowed) == 0 or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(allowed) / 2_000_000


@asynccontextmanager
async def notifications(path: Path, on_lines: Callable[[list[str]], None]) -> AsyncIterator[None]:
    """Listen at `path`, which is made here, as the one that $NOTIFY_SOCKET names; each datagram's lines go to `on_lines`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        sock.bind(str(path))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Lines(on_lines), sock=sock)
        try:
            yield
        finally:
            transport.close()


class _Lines(asyncio.DatagramProtocol):
    def __init__(self, on_lines: Callable[[list[str]], None]) -> None:
        self._on_lines = on_lines

    def datagram_received(self, data: bytes, addr: Any) -> None:
        del addr
        self._on_lines(data.decode(errors="replace").splitlines())
