"""Storage backends, each by the stanza that cinder.conf has for it and the daemons that can be killed under it."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.testing.servers import free_port
from nova_lite.virt.host_side import KEYRINGS
from tests.integration.chaos.stage import pids_of_tgtd
from tests.support.ceph import POOL, USER, ceph_cluster
from tests.support.lvm import GROUP, private_group


@dataclass(frozen=True)
class Backend:
    """stanza: the options of the backend's section; daemons: name -> what kills it, where something starts it again.

    keyrings   where compute hosts find the keys that they need for it
    """

    stanza: str
    daemons: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    keyrings: Path = KEYRINGS


@asynccontextmanager
async def file_and_tgt(folder: Path) -> AsyncIterator[Backend]:
    """Files, exported by a tgtd that cinder-volume starts and starts again."""
    driver = f"volume_driver = cinder.volume.drivers.file.FileDriver\nvolumes_dir = {folder}/volumes\nfile_capacity_gb = 10\n"
    target, daemons = _tgt(folder)
    yield Backend(driver + target, daemons)


@asynccontextmanager
async def lvm_and_tgt(folder: Path) -> AsyncIterator[Backend]:
    """Logical volumes on a loop device, each shown by a loop device of its own: the tests' kernel has no device-mapper."""
    with private_group(folder / "lvm") as group:
        target, daemons = _tgt(folder)
        driver = (
            f"volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver\nvolume_group = {GROUP}\nlvm_type = default\nlvm_devices = loop\n"
            f"lvm_conf_file = {group.system_dir}/lvm.conf\nvolumes_dir = {folder}/volumes\n"
        )
        yield Backend(driver + target, daemons)


@asynccontextmanager
async def rbd(folder: Path) -> AsyncIterator[Backend]:
    """Images of a Ceph pool, which machines open themselves."""
    with ceph_cluster(is_durable=True) as ceph:
        keyrings = folder / "keyrings"
        keyrings.mkdir()
        shutil.copy(ceph.folder / f"client.{USER}.keyring", keyrings / f"ceph.client.{USER}.keyring")

        async def restart_monitor() -> None:
            await asyncio.to_thread(ceph.kill, "mon")
            await asyncio.to_thread(ceph.start_monitor)

        async def restart_osd() -> None:
            await asyncio.to_thread(ceph.kill, "osd")
            await asyncio.to_thread(ceph.start_osd)

        async def freeze_osd() -> None:
            ceph.freeze("osd")
            await asyncio.sleep(_FROZEN_S)
            ceph.thaw("osd")

        stanza = (
            f"volume_driver = cinder.volume.drivers.rbd.RBDDriver\nrbd_pool = {POOL}\nrbd_user = {USER}\nrbd_ceph_conf = {ceph.client_conf}\n"
            f"rbd_capacity_gb = 10\nvolumes_dir = {folder}/volumes\n"
        )
        daemons: dict[str, Callable[[], Awaitable[None]]] = {
            "the OSD": restart_osd,
            "the monitor": restart_monitor,
            "the OSD, for a while,": freeze_osd,
        }
        yield Backend(stanza, daemons, keyrings)


def _tgt(folder: Path) -> tuple[str, dict[str, Callable[[], Awaitable[None]]]]:
    socket = folder / "tgtd"

    async def kill_tgtd() -> None:
        for pid in pids_of_tgtd(str(socket)):
            os.kill(pid, signal.SIGKILL)

    stanza = (
        f"target_helper = tgtadm\ntgtd_managed = true\ntgt_ipc_socket = {socket}\n"
        f"target_ip_address = 127.0.0.1\ntarget_port = {free_port()}\n"
    )
    return stanza, {"tgtd": kill_tgtd}


_FROZEN_S = 2.0

BACKENDS = {"file+tgt": file_and_tgt, "lvm+tgt": lvm_and_tgt, "rbd": rbd}
"""By name: what makes a backend in a folder."""
