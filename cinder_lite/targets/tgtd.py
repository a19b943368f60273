"""A private tgtd: started in the foreground, ready when it listens where it was told to, stopped by its pid.

tgtd of its own accord listens on every address at port 3260 when it cannot listen where it was told, and says so only in its
log; it ignores SIGTERM. Both are seen to here. It needs no root: any user may run one on a port above 1023.
"""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from cinder_lite.errors import PortalNotBound, TargetUnavailable
from cinder_lite.targets.tgt import TgtOptions
from cinder_lite.targets.tgtadm import SOCKET_PATH_BYTES_MAX, TgtRefused
from common.base.clock import Clock
from common.base.errors import Fault

READY_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
LOG_BYTES_MAX = 4 * 1024 * 1024
"""A longer log of an earlier run is begun anew."""

RESTART_DELAY_S = 0.2
_POLL_DELAY_S = 0.02
_log = structlog.get_logger(__name__)


class TgtDaemon:
    """An async context manager; inside, tgtd answers and listens on `portal` and nowhere else.

    options    portal, control port and socket; the socket's folder is made, mode 0700, when it is not there
    log_path   what tgtd says; None: beside the socket, named as it is, with .log

    adopt      True: a tgtd that answers at that socket and listens on that portal is taken over, and stopped in the end

    It is a session of its own, so that Ctrl-C at the terminal reaches who started it, and it only through them. When this
    process is killed tgtd lives on, and the guests with it. The next start at the same socket is refused then, or adopts it.
    """

    def __init__(self, options: TgtOptions, clock: Clock, *, log_path: Path | None = None, adopt: bool = False) -> None:
        self.portal = options.portal
        self.tgtadm = options.tgtadm
        self.log_path = log_path or self.tgtadm.socket_path.with_suffix(".log")
        self._clock = clock
        self._adopt = adopt
        self._process: asyncio.subprocess.Process | _Adopted | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    async def __aenter__(self) -> Self:
        """Raises TargetUnavailable, PortalNotBound; nothing runs then."""
        if await self._already_answers():
            self._process = await self._take_over()
            return self
        self._process = await self._start()
        try:
            await self._wait_until_ready()
            await self._check_portal()
        except BaseException:
            await self._kill()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Its targets are deleted and it ends; what does not go in time is killed."""
        try:
            with suppress(TimeoutError, Fault):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._shut_down()
                    await self._running().wait()
        finally:
            await self._kill()

    async def keep(self, came_back: Callable[[], None]) -> None:
        """Never ends: a tgtd that dies is started again, and `came_back` is told, since the new one has none of the targets."""
        while True:
            status = await self.wait()
            _log.error("tgtd ended; it is started again", name=self.tgtadm.name, status=status)
            await self._clock.sleep(RESTART_DELAY_S)
            try:
                self._process = await self._start()
                await self._wait_until_ready()
                await self._check_portal()
            except Fault as exc:
                _log.error("tgtd not started", name=self.tgtadm.name, reason=str(exc))
                await self._kill()
            else:
                came_back()

    async def wait(self) -> int:
        """Its exit status, once it has ended; below 0 the signal that killed it; -1 also for one that was adopted."""
        return await self._running().wait()

    def _running(self) -> "asyncio.subprocess.Process | _Adopted":
        assert self._process is not None, "tgtd was not started"
        return self._process

    async def _already_answers(self) -> bool:
        path = self.tgtadm.socket_path
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            reason = f"its socket's path has more than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter one"
            raise TargetUnavailable(name=self.tgtadm.name, reason=reason)
        try:
            await self.tgtadm.portals()
        except TargetUnavailable:
            return False
        return True

    async def _take_over(self) -> "_Adopted":
        if not self._adopt:
            reason = "another tgtd already answers there; stop it, or choose another socket or control port"
            raise TargetUnavailable(name=self.tgtadm.name, reason=reason)
        await self._check_portal()
        return _Adopted(await asyncio.to_thread(_listener, self.tgtadm.socket_path))

    async def _start(self) -> asyncio.subprocess.Process:
        argv = ("tgtd", "-f", "-C", str(self.tgtadm.control_port), "--iscsi", f"portal={self.portal}")
        try:
            self.tgtadm.socket_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            log = _open_log(self.log_path)  # here: a thread whose awaiter is gone would leave it open
            try:
                nothing = asyncio.subprocess.DEVNULL
                return await asyncio.create_subprocess_exec(
                    *argv, stdin=nothing, stdout=log, stderr=log, env=self.tgtadm.environment, start_new_session=True
                )
            finally:
                os.close(log)
        except OSError as exc:
            raise TargetUnavailable(name=self.tgtadm.name, reason=f"tgtd could not be started: {exc}") from exc

    async def _wait_until_ready(self) -> None:
        """It answers only after it tried its portals."""
        deadline = self._clock.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                await self.tgtadm.portals()
            except TargetUnavailable as exc:
                status = self._running().returncode
                if status is not None or self._clock.monotonic() >= deadline:
                    end = "did not answer in time" if status is None else f"ended with status {status}"
                    reason = f"it {end}; its last words: {await asyncio.to_thread(_last_words, self.log_path)}"
                    raise TargetUnavailable(name=self.tgtadm.name, reason=reason) from exc
                await self._clock.sleep(_POLL_DELAY_S)
            else:
                return

    async def _check_portal(self) -> None:
        found = await self.tgtadm.portals()
        if found != (self.portal,):
            raise PortalNotBound(portal=str(self.portal), found=", ".join(map(str, found)) or "no port")

    async def _shut_down(self) -> None:
        """Raises TgtRefused when a disk is being read or written: tgtd keeps that target, and does not end while it has one."""
        for target in await self.tgtadm.targets():
            with suppress(TgtRefused):
                await self.tgtadm.ask("delete", "target", "--force", "--tid", str(target.tid))
        await self.tgtadm.ask("delete", "system")

    async def _kill(self) -> None:
        process = self._running()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _Adopted:
    """A process that another started: seen and ended through a descriptor of its own, which no other process ever gets."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._fd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._fd, self._on_end)

    async def wait(self) -> int:
        """-1: its status is told to its parent only."""
        await self._ended.wait()
        return -1

    def kill(self) -> None:
        signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self.returncode = -1
        self._ended.set()


def _listener(path: Path) -> int:
    """The pid of who listens on a Unix socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        credentials = struct.Struct("@iII")
        pid: int = credentials.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))[0]
        return pid


def _open_log(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_long = path.exists() and path.stat().st_size > LOG_BYTES_MAX
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if is_long else 0), 0o600)


def _last_words(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-3:]) or "none"
