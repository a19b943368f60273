"""A volume grows under a machine that writes to it all the time: tgtd alone would lose some of that (see tgt.py)."""

import asyncio
from pathlib import Path

import pytest

from cinder_lite.errors import ExportFailure
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.virt.qemu import QemuHypervisor
from tests.conformance.hypervisor.bench import instance
from tests.conformance.target.rigs import MIB, TgtRig, connector, new_export
from tests.conformance.target.test_tgt import recording_tgtadm

pytestmark = [pytest.mark.real("tgt"), pytest.mark.real("qemu")]


async def test_nothing_is_lost_of_what_a_machine_writes_while_its_volume_grows(tgt: TgtRig, tmp_path: Path) -> None:
    export = new_export(tgt)
    volume_id, uuid = export.volume.id, new_uuid()
    await tgt.target.create_export(export)
    info = await tgt.target.initialize_connection(export, connector())
    hypervisor = QemuHypervisor(tmp_path, SystemClock())
    await hypervisor.spawn(instance(uuid))
    begun, grown = asyncio.Event(), asyncio.Event()
    written: dict[int, int] = {}

    async def write() -> None:
        """Until the volume has grown, and once more."""
        for number in range(1, 100_000):
            offset, pattern = (number % 64) * 4096, number % 251 + 1
            is_last = grown.is_set()
            await hypervisor.write_pattern(uuid, volume_id, pattern=pattern, offset=offset, length=4096)
            written[offset] = pattern
            begun.set()
            if is_last:
                return

    try:
        await hypervisor.attach_volume(info | {"serial": volume_id, "connector": connector()}, uuid, "/dev/vdb")
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            group.create_task(write())
            await begun.wait()
            tgt.grow(export.path, 8 * MIB)
            await tgt.target.extend_target(export, 8 * MIB)
            grown.set()
    finally:
        await hypervisor.destroy(uuid)
    stored = await asyncio.to_thread(Path(export.path).read_bytes)
    assert {offset: stored[offset] for offset in written} == written
    assert len(stored) == 8 * MIB


async def test_the_file_is_opened_anew_only_when_nobody_is_at_work_on_it(
    tgt: TgtRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 22 times under a session that reads all the time, one was answered by a medium error."""
    export = new_export(tgt)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    async with tgt.session(export, connector()):
        tgt.grow(export.path, 2 * MIB)
        log = recording_tgtadm(tmp_path / "bin", monkeypatch)
        await tgt.target.extend_target(export, 2 * MIB)
    asked = [line.split(" --op ")[1] for line in log.read_text().splitlines()]
    first = {
        word: min(number for number, line in enumerate(asked) if word in line)
        for word in ("offline", "mode conn", "online=1", "ready")
    }
    ended = max(number for number, line in enumerate(asked) if line.startswith("delete --mode conn"))
    assert first["offline"] < first["mode conn"] <= ended < first["online=1"] < first["ready"]
    assert any(line.startswith("show --mode target") for line in asked[ended : first["online=1"]])


async def test_a_target_that_was_left_offline_comes_back(tgt: TgtRig) -> None:
    """cinder-volume died in the middle; its flow is carried on by asking again."""
    export = new_export(tgt)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    tgt.grow(export.path, 2 * MIB)
    await tgt.tgtadm.ask("update", "target", "--tid", "1", "--name", "state", "--value", "offline")
    assert not await tgt.gets_in(export, connector())
    await tgt.target.extend_target(export, 2 * MIB)
    assert await tgt.capacity(export, connector()) == 2 * MIB


async def test_a_disk_that_is_gone_leaves_the_target_for_create_export_to_mend(tgt: TgtRig) -> None:
    export = new_export(tgt)
    await tgt.target.create_export(export)
    tgt.break_exporting(export)
    with pytest.raises(ExportFailure, match="does not show it"):
        await tgt.target.extend_target(export, 2 * MIB)
    tgt.backing(export.volume.name)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    assert await tgt.gets_in(export, connector())
