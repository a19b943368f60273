"""Who has a file or a block device open, as /proc shows it to this user. Blocking: call it in a thread."""

import os
import stat
from contextlib import suppress
from pathlib import Path


def users_of(path: Path) -> list[str]:
    """ "process 123 (qemu)" of each other process that has it open, under whatever name; none when it is not there."""
    try:
        wanted = path.stat()
    except OSError:
        return []
    name = path.resolve().name
    return [
        f"process {process.name}{_command_of(process)}"
        for process in Path("/proc").iterdir()
        if process.name.isdecimal() and int(process.name) != os.getpid() and _has_open(process, name, wanted)
    ]


def _has_open(process: Path, name: str, wanted: os.stat_result) -> bool:
    try:
        for fd in (process / "fd").iterdir():
            # The name first: a stat of any open file of any process may wait for a dead file server.
            with suppress(OSError):
                if os.path.basename(os.readlink(fd)) == name and _is_same(fd.stat(), wanted):  # noqa: PTH115, PTH119
                    return True
    except OSError:  # the process has ended, or is another user's
        return False
    return False


def _is_same(found: os.stat_result, wanted: os.stat_result) -> bool:
    if stat.S_ISBLK(wanted.st_mode):
        return stat.S_ISBLK(found.st_mode) and found.st_rdev == wanted.st_rdev
    return os.path.samestat(found, wanted)


def _command_of(process: Path) -> str:
    try:
        return f" ({(process / 'comm').read_text().strip()})"
    except OSError:
        return ""
