"""Several processes on one database, SQLite's file among them."""

import asyncio
import os
import signal
import sys

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.store.volumes import Volumes
from common.db.engine import Database
from common.host.clock import SystemClock

PROCESSES, ROUNDS = 3, 15

_PROGRAM = """
import asyncio, sys
from cinder_lite.errors import VolumeInUse
from cinder_lite.store.volume_attachment import VolumeAttachments
from common.base.ids import new_uuid
from common.db.engine import open_database
from common.host.clock import SystemClock

async def main(url, volume_id, rounds):
    clock = SystemClock()
    db = open_database(url, clock=clock)
    store = VolumeAttachments(db, clock)
    won = 0
    while won < rounds:
        attachment = new_uuid()
        try:
            await store.reserve(volume_id, attachment, "vm")
        except VolumeInUse:
            continue
        await store.connecting(attachment, {"host": "h"})
        holders = await store.attached(volume_id, attachment, instance_uuid="vm", host_name=None, mountpoint="/dev/vdb", mode="rw")
        await store.begin_detaching(volume_id, attachment)
        await store.detached(volume_id, attachment)
        won += 1
    await db.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_processes_that_fight_for_one_volume_take_turns_and_lose_nothing(database: Database, database_url: str) -> None:
    store = Volumes(database, SystemClock())
    await store.create(Volume(id="v", size=1, status=VolumeStatus.AVAILABLE))
    argv = [sys.executable, "-c", _PROGRAM, database_url, "v", str(ROUNDS)]
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*argv, stderr=pipe) for _ in range(PROCESSES)]
    try:
        said = await asyncio.gather(*(process.communicate() for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
    assert [(process.returncode, err.decode()[-2000:]) for process, (_, err) in zip(processes, said, strict=True)] == [(0, "")] * 3
    found = await store.get("v")
    assert (found.status, found.volume_attachment) == (VolumeStatus.AVAILABLE, ())
