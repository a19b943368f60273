"""`lite up`: every service of this machine as a process of its own, on a bus that a second terminal reaches."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from common.app.children import Child, Children
from common.app.embedded import portal_port
from common.app.whole import Whole
from common.base.clock import Clock
from common.db.migrate import upgrade

SETTINGS = "up.conf"


@asynccontextmanager
async def everything(whole: Whole, clock: Clock, *, write: None = None) -> AsyncIterator[Children]:
    """All processes are ready inside the block, and gone after it. Raises ChildFailed, Misconfigured, what the upgrade raises."""
    await upgrade(whole.database.connection, whole.branches, clock=clock)
    children = Children(grace_s=whole.common.graceful_shutdown_timeout + 5, write=write)
    async with children.running([*_children(whole)]):
        yield children


def _children(whole: Whole) -> Sequence[Child]:
    """Our own settings come first, so that the user's files win."""
    made = []
    for service in whole.installed:
        settings = _settings(whole.common.state_path, service.name)
        files = [word for path in (settings, *whole.files) for word in ("--config-file", str(path))]
        for process in service.processes:
            argv = (sys.executable, "-m", f"{service.name}_lite", "run", process.name, *files)
            made.append(Child(process.binary, argv))
    return made


def _settings(state_path: Path, service: str) -> Path:
    """What `lite up` sets: the demo may look at bytes, and the target has a port that was free when it was first needed.

    The file stays: machines outlive the services and find their disks again only where these were.
    """
    path = state_path / f"{service}-{SETTINGS}"
    if path.exists():
        return path
    lines = ["[DEFAULT]", "enable_data_probe = true", "my_ip = 127.0.0.1"]
    if service == "cinder":
        lines += ["[file]", f"target_port = {portal_port()}"]
    state_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text("# written once by `lite up`; your own --config-file wins\n" + "\n".join(lines) + "\n")
    return path
