"""Storage backends, each by the stanza that cinder.conf has for it and the daemons that can be killed under it."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.testing.servers import free_port
from tests.integration.chaos.stage import pids_of_tgtd


@dataclass(frozen=True)
class Backend:
    """stanza: the options of the backend's section; daemons: name -> what kills it, where something starts it again by itself."""

    stanza: str
    daemons: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


@asynccontextmanager
async def file_and_tgt(folder: Path) -> AsyncIterator[Backend]:
    """Files, exported by a tgtd that cinder-volume starts and starts again."""
    socket = folder / "tgtd"

    async def kill_tgtd() -> None:
        for pid in pids_of_tgtd(str(socket)):
            os.kill(pid, signal.SIGKILL)

    stanza = (
        f"volume_driver = cinder.volume.drivers.file.FileDriver\nvolumes_dir = {folder}/volumes\nfile_capacity_gb = 10\n"
        f"target_helper = tgtadm\ntgtd_managed = true\ntgt_ipc_socket = {socket}\ntarget_ip_address = 127.0.0.1\ntarget_port = {free_port()}\n"
    )
    yield Backend(stanza, {"tgtd": kill_tgtd})


BACKENDS = {"file+tgt": file_and_tgt}
"""By name: what makes a backend in a folder."""
