"""Which processes of this machine are alive: files whose locks (flock(2)) their processes hold as long as they live.

The kernel gives a lock back however its process ends, and not before: one that was stopped (SIGSTOP) still has it. So whoever gets a
lock knows that its last holder is dead, and can act in this machine's storage and on its guests without fearing that it wakes up.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote

from common.base.errors import Misconfigured

_SUFFIX = ".lock"


class RunsAlready(Misconfigured):
    """{name} runs on this machine already (pid {pid}, lock {file}). Stop it, or give this one another [DEFAULT] host."""


@contextmanager
def hold_name(folder: Path, name: str, *, boot: str | None = None) -> Iterator[frozenset[str]]:
    """The process bears `name` inside the block; it is given the boots of this name on this machine that are known to be dead.

    boot   None: there can be one of that name at a time, so nobody needs to be told who is dead. Else several can be, each by its
           boot, a word that no other process has.
    Raises RunsAlready when there can be one and is one; Misconfigured when the folder cannot be used.
    """
    locks = folder / "locks"
    try:
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        dead = frozenset() if boot is None else _dead(locks, name)
        file = locks / f"{_quoted(name if boot is None else f'{name}#{boot}')}{_SUFFIX}"
        lock = _locked(file) if boot is None else _made_locked(file)
    except OSError as exc:
        raise Misconfigured(reason=f"[DEFAULT] state_path: {locks} cannot be used: {exc.strerror}") from exc
    if lock is None:
        raise RunsAlready(name=name, pid=_first_word(file), file=file)
    try:
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield dead
    finally:
        if boot is not None:
            file.unlink(missing_ok=True)
        os.close(lock)


def _dead(locks: Path, name: str) -> frozenset[str]:
    """The boots of that name whose locks can be had; their files go."""
    found = set()
    for file in locks.glob(f"{_quoted(name)}%23*{_SUFFIX}"):
        if (lock := _locked(file)) is not None:
            found.add(unquote(file.name.removesuffix(_SUFFIX)).rpartition("#")[2])
            file.unlink(missing_ok=True)
            os.close(lock)
    return frozenset(found)


def _locked(file: Path) -> int | None:
    """The open file with its lock; None when somebody else has it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _made_locked(file: Path) -> int | None:
    """A new file that is never seen without its lock: whoever finds one such takes its process for dead."""
    made = file.with_suffix(".new")
    lock = _locked(made)
    if lock is not None:
        made.rename(file)
    return lock


def _quoted(name: str) -> str:
    return quote(name, safe="@")


def _first_word(file: Path) -> str:
    with suppress(OSError):
        return file.read_text().strip() or "unknown"
    return "unknown"
