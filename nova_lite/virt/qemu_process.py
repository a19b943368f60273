"""The processes of machines: known by their pid files, held by pidfds, so that no other process is ever taken for one."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from common.base.ids import is_uuid

PID_FILE = "pid"
LOG_FILE = "log"

_LOG_TAIL_BYTES = 4096


@contextmanager
def machine_process(folder: Path, uuid: str) -> Iterator[int | None]:
    """A pidfd of the machine's live process; None when there is none.

    A pid may have gone to another process since it was written down. So the pidfd is opened first, and then the command line
    must be that of this machine; whatever happens later, the pidfd means the process that was looked at.
    """
    pidfd = _open_pidfd(folder, uuid)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def is_running(folder: Path, uuid: str) -> bool:
    """Whether the machine's process is alive."""
    with machine_process(folder, uuid) as pidfd:
        return pidfd is not None


def _open_pidfd(folder: Path, uuid: str) -> int | None:
    try:
        pid = int((folder / PID_FILE).read_text())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return None
    if _is_machine(pid, uuid):
        return pidfd
    os.close(pidfd)
    return None


def _is_machine(pid: int, uuid: str) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(pair == (b"-uuid", uuid.encode()) for pair in pairwise(argv))


async def ended(pidfd: int, *, timeout_s: float) -> bool:
    """True as soon as the process has ended, False when it has not after `timeout_s`."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        async with asyncio.timeout(timeout_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


async def killed(pidfd: int, *, timeout_s: float) -> bool:
    """Kill the process; True when it was seen to end. A process that waits for a dead disk can take its time."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return await ended(pidfd, timeout_s=timeout_s)


def make_folder(folder: Path) -> None:
    """A new folder for a machine. Whoever reaches its monitor owns the machine, so it is closed to others."""
    remove_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)


def remove_folder(folder: Path) -> None:
    """Remove it with all that is in it; gone already: nothing happens. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def running_in(instances: Path) -> set[str]:
    """The uuids of the live machines among the folders of `instances`."""
    try:
        folders = [folder for folder in instances.iterdir() if is_uuid(folder.name)]
    except OSError:
        return set()
    return {folder.name for folder in folders if is_running(folder, folder.name)}


def remains_in(instances: Path) -> dict[str, list[str]]:
    """uuid -> the folder, of each machine that is not alive."""
    try:
        folders = [folder for folder in instances.iterdir() if is_uuid(folder.name)]
    except OSError:
        return {}
    return {folder.name: [str(folder)] for folder in folders if not is_running(folder, folder.name)}


def last_words(folder: Path) -> str | None:
    """The last line of the machine's log; None when it holds none."""
    try:
        with (folder / LOG_FILE).open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES, 0))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None
