"""Names for reply and fanout queues that come back after a restart: oslo.messaging's `use_queue_manager`.

oslo.messaging counts in one file and begins anew when its process group changes, so that two services of one process name give
out the same names (oslo_messaging/_drivers/amqpdriver.py, QManager). Here each number is a file whose lock (flock(2)) is held as
long as the process lives: the kernel gives a number to one holder at a time and frees it however that ends. Nothing is counted,
so nothing can be read half written, reset, or taken for another process's by a pid that came back.
"""

import errno
import fcntl
import os
from pathlib import Path
from urllib.parse import quote

from common.base.errors import Misconfigured
from common.base.limits import QUEUE_NAMES_MAX
from common.wire.address import stable_name

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - oslo.messaging's place; files are opened as in a folder that others can write to
"""Where all processes of a host look, whatever their state_path; it is empty after a boot."""

_TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EPERM, errno.ELOOP}
"""Locked by another process, or a file of another user."""


def names_folder(otherwise: Path, *, shared: Path = SHARED_MEMORY) -> Path:
    """Where locks are kept: `shared`, or `otherwise` where that is missing or not for us.

    Processes that have a process name in common must find the same folder: without `shared` they need the same state_path.
    """
    return shared if shared.is_dir() and os.access(shared, os.W_OK | os.X_OK) else otherwise


class StableNames:
    """Each call gives another name, `<hostname>:<processname>:<n>`, with the smallest n that no process on this host holds.

    It is held until `close` or the end of the process. Two hosts of one hostname are not seen, nor are containers that do not
    share the folder.
    """

    def __init__(self, folder: Path, *, hostname: str, processname: str) -> None:
        self._folder = folder
        self._hostname = hostname
        self._processname = processname
        self._locks: list[int] = []

    def __call__(self) -> str:
        """Raises Misconfigured when the folder cannot be used or QUEUE_NAMES_MAX names are taken."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, QUEUE_NAMES_MAX + 1):
                if (lock := _locked(self._file(number))) is not None:
                    self._locks.append(lock)
                    return stable_name(self._hostname, self._processname, number)
        except OSError as exc:
            raise self._wrong(f"{self._folder}: {exc.strerror}") from exc
        raise self._wrong(f"{self._folder}: all of {QUEUE_NAMES_MAX} names of {self._hostname}:{self._processname} are taken")

    def close(self) -> None:
        """Others may have the names from now on."""
        locks, self._locks = self._locks, []
        for lock in locks:
            os.close(lock)

    def _file(self, number: int) -> Path:
        return self._folder / f"{quote(self._hostname, safe='')}_{quote(self._processname, safe='')}_qmanager.{number}"

    @staticmethod
    def _wrong(reason: str) -> Misconfigured:
        return Misconfigured(reason=f"[oslo_messaging_rabbit] use_queue_manager cannot give a queue its name: {reason}")


def _locked(file: Path) -> int | None:
    """The open file with its lock; None when somebody else has it. It is never removed: a lock on a removed file says nothing."""
    lock: int | None = None
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if lock is not None:
            os.close(lock)
        if exc.errno in _TAKEN:
            return None
        raise
    return lock
