"""A server process in a folder of its own."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from common.host.to_its_end import in_thread
from common.testing.servers.programs import ServerFailed

START_TIMEOUT_S = 90.0
"""RabbitMQ needs 6 s on an idle machine with 2 cores; a busy one needs many times that."""
STOP_TIMEOUT_S = 20.0
_POLL_S = 0.05
_SOCKET_PATH_BYTES_MAX = 80
"""A unix socket's path holds 107 bytes (unix(7)); the rest is left for the socket's own name."""


class Server(ABC):
    """One server process and its folder.

    folder            exists or is made; None, or one that cannot be used: a new folder in the system's place for temporary files,
                      removed by `stop`
    keeps_its_word    what a database has confirmed is still there after `kill`; else it is faster
    """

    spawns_max: ClassVar[int] = 20
    """A start is tried so often, for the sake of what a predecessor still holds."""

    def __init__(self, folder: Path | None = None, *, keeps_its_word: bool = False) -> None:
        self.keeps_its_word = keeps_its_word
        self._made = folder is None or not self._suits(folder)
        self.folder = Path(tempfile.mkdtemp(prefix="srv-")) if folder is None or self._made else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """What this machine lacks to run the server, in words; None when it lacks nothing."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The version of the installed server, as it tells it itself."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the files that the first start needs."""

    @abstractmethod
    def _command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """(argument vector, variables to add to the environment) of the server in the foreground."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """True when it serves requests."""

    @property
    def port(self) -> int:
        """The TCP port of 127.0.0.1 for clients; it stays the same over restarts."""
        return self._port

    @property
    def is_running(self) -> bool:
        """True from `start` until its process ends, however it ends."""
        return self._lives()

    def start(self) -> None:
        """Returns when the server serves requests. Running already: nothing happens. Raises ServerFailed."""
        if self._lives():
            return
        if not self._prepared:
            self._prepare()
            self._prepared = True
        deadline = time.monotonic() + START_TIMEOUT_S
        for _ in range(self.spawns_max):
            self._spawn()
            if wait_until(lambda: not self._lives() or self._is_ready(), deadline) and self._lives():
                return
            # What a killed predecessor held (a lock file, a port) may be held for a moment longer.
            self._end(signal.SIGKILL)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S * 4)
        raise ServerFailed(f"{type(self).__name__} did not start; the end of its log:\n{self._log_tail()}")

    def stop(self) -> None:
        """Ends it in good order, or else by force; removes a folder of its own making."""
        self._end(signal.SIGTERM)
        if self._made:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Ends it as a power cut would; `start` may follow."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            return await in_thread(self.__enter__)
        except asyncio.CancelledError:
            await in_thread(self.stop)
            raise

    async def __aexit__(self, *_: object) -> None:
        await in_thread(self.stop)

    @classmethod
    def _suits(cls, folder: Path) -> bool:
        """False when the server could not work in that folder."""
        return len(os.fsencode(folder.absolute())) <= _SOCKET_PATH_BYTES_MAX

    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _spawn(self) -> None:
        argv, extra = self._command()
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the vector is ours
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **extra}, start_new_session=True
            )

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in (how, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(STOP_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait(STOP_TIMEOUT_S)
        wait_until(lambda: not answers(self.port), time.monotonic() + STOP_TIMEOUT_S)

    def _log_tail(self) -> str:
        log = self.folder / "output.log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else "(no log)"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, outside the range that the kernel gives to clients."""
    for _ in range(1000):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free port between 20000 and 32000")


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
