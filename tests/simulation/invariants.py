"""The judge: what must hold once every fault is over, seen in reality and compared with the rows. Names are those of reliability.md."""

import re
from collections.abc import Iterator
from typing import Any

from cinder_lite.contract import VolumeStatus as Status
from common.testing.bus import label
from tests.simulation.reality import Disk
from tests.simulation.world import World

Finding = tuple[str, str]

_PREFIX = "iqn.2010-10.org.openstack:volume-"
_UNATTENDED = re.compile("^reply_|_fanout_|_dead_letter$")
"""Queues that need no consumer: of one process, dropped half an hour after its death (x-expires), and what waits for a person."""
_MOVING = {"creating", "reserved", "attaching", "detaching", "extending", "deleting"}
"""vm_states of a server that has no machine and keeps its volumes: it was stopped, or its reboot failed."""
_KEPT = {Status.AVAILABLE, Status.IN_USE}


def judge(world: World) -> list[Finding]:
    """Everything that is not as it has to be now; each finding an invariant's name and what was seen."""
    rows = world.database.rows
    volumes = rows("SELECT id, status, attach_status, provider_location, size FROM volumes WHERE NOT deleted")
    attachments = rows("SELECT id, volume_id, instance_uuid, attached_host, attach_status FROM volume_attachment WHERE NOT deleted")
    mappings = rows("SELECT instance_uuid, volume_id, attachment_id, device_name FROM block_device_mapping WHERE deleted = 0")
    servers = rows("SELECT uuid, vm_state, task_state, host FROM instances WHERE deleted = 0")
    snapshots = rows("SELECT id, status FROM snapshots WHERE NOT deleted")
    return [
        *_nothing_moves([*volumes, *snapshots], attachments, servers),
        *_sizes_agree(world, volumes),
        *_snapshots_agree(world, snapshots),
        *_no_work_is_left(world),
        *_nothing_is_done_twice(world),
        *_all_agree(world, volumes, attachments, mappings, servers),
        *_nothing_leaks(world, volumes, mappings),
        *_machines_are_servers(world, servers),
    ]


def is_quiet(world: World) -> bool:
    """Every process is up, nobody is at work, and every machine that died was noticed."""
    return (
        world.are_up
        and not world.reality.died
        and not any(True for _ in _no_work_is_left(world))
        and not any(
            True
            for _ in _nothing_moves(
                world.database.rows(
                    "SELECT id, status FROM volumes WHERE NOT deleted UNION ALL SELECT id, status FROM snapshots WHERE NOT deleted"
                ),
                [],
                world.database.rows("SELECT uuid, vm_state, task_state FROM instances WHERE deleted = 0"),
            )
        )
    )


def unheld(world: World) -> Iterator[Finding]:
    """S4, at any instant: what moves is in somebody's hands. A flow that is not over, a letter or a message names it, or its server.

    Reconcilers would find it half a minute later; nobody shall rely on that for a command that was accepted.
    """
    rows = world.database.rows
    moving = [
        row["id"] for row in rows("SELECT id FROM volumes WHERE status IN ('creating', 'attaching', 'detaching', 'deleting')")
    ]
    moving += [row["uuid"] for row in rows("SELECT uuid FROM instances WHERE vm_state = 'building' OR task_state = 'deleting'")]
    if not moving:
        return
    texts = [
        f"{row['subject']} {row['arguments']}"
        for row in rows("SELECT subject, arguments FROM flows WHERE state IN ('running', 'parked')")
    ]
    texts += [row["body"] for row in rows("SELECT body FROM outbox")]
    texts += [body.decode() for body in _on_the_bus(world)]
    servers = {row["volume_id"]: row["instance_uuid"] for row in rows("SELECT * FROM block_device_mapping WHERE deleted = 0")}
    for key in moving:
        names = {key, servers.get(key, key)}
        if not any(name in text for text in texts for name in names):
            yield "S4", f"{key} moves, and no flow, letter or message knows of it"


def _on_the_bus(world: World) -> Iterator[bytes]:
    yield from (body for _, body in world.fate.underway)
    for queue in world.bus._queues.values():
        yield from (waiting.body for waiting in queue.ready)
        for taker in queue.takers:
            yield from (waiting.body for waiting in taker._unsettled)


def _nothing_moves(volumes: list[Any], attachments: list[Any], servers: list[Any]) -> Iterator[Finding]:
    """L1"""
    for row in volumes:
        if row["status"] in _MOVING:
            yield "L1", f"volume {row['id']} is {row['status']}"
    for row in attachments:
        if row["attach_status"] in _MOVING:
            yield "L1", f"attachment {row['id']} is {row['attach_status']}"
    for row in servers:
        if row["task_state"] is not None or row["vm_state"] == "building":
            yield "L1", f"server {row['uuid']} is {row['vm_state']}, {row['task_state']}"


def _no_work_is_left(world: World) -> Iterator[Finding]:
    """L2"""
    for row in world.database.rows("SELECT id, state, owner, error FROM flows WHERE state NOT IN ('completed', 'compensated')"):
        yield "L2", f"flow {row['id']} of {row['owner']} is {row['state']} {row['error'] or ''}"
    tables = {row["name"] for row in world.database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "outbox" in tables and (left := world.database.rows("SELECT count(*) AS number FROM outbox")[0]["number"]):
        yield "L2", f"{left} rows are in the outbox"
    for row in world.database.rows("SELECT id FROM inbox WHERE NOT is_done"):
        yield "L2", f"request {row['id']} is begun, and nothing came of it"
    for name, queue in world.bus._queues.items():
        if not queue.takers and not _UNATTENDED.search(name):
            yield "L3", f"queue {name} has no consumer, and {len(queue.ready)} messages"
        elif queue.takers and queue.ready:
            yield "L2", f"{len(queue.ready)} messages wait in {name}: {label(queue.ready[0].body)}"
        for taker in queue.takers:
            if taker._unsettled:
                yield "L2", f"{len(taker._unsettled)} messages of {name} are not settled: {label(taker._unsettled[0].body)}"


def _nothing_is_done_twice(world: World) -> Iterator[Finding]:
    """S3: however often its message came, a request is one piece of work. (A detachment is begun anew when it failed.)"""
    query = (
        "SELECT saga, subject, request_id, count(*) AS number FROM flows GROUP BY saga, subject, request_id "
        "HAVING number > 1 AND saga IN ('boot', 'delete', 'attach_volume', 'create_volume', 'delete_volume')"
    )
    for row in world.database.rows(query):
        yield "S3", f"request {row['request_id']} is {row['number']} flows {row['saga']} of {row['subject']}"


def _is_off(world: World, server: Any) -> bool:
    """Its machine is not there, and its volumes are kept for the next: it was stopped, or a start, reboot or deletion of it failed.

    A machine may die by itself in a reboot: that is a reboot that failed. One that dies while nobody is at work on it keeps no disk.
    """
    if server is None or server["uuid"] in {machine.uuid for machine in world.reality.machines()}:
        return False
    if server["vm_state"] != "error":
        return bool(server["vm_state"] == "stopped")
    query = "SELECT event FROM state_history WHERE subject = ? ORDER BY id DESC LIMIT 1"
    return bool(world.database.rows(query, server["uuid"])[0]["event"] != "machine_lost")


def _all_agree(
    world: World, volumes: list[Any], attachments: list[Any], mappings: list[Any], servers: list[Any]
) -> Iterator[Finding]:
    """S8: mapping <=> attachment <=> export and access <=> disk with a session; the volume's status follows."""
    reality = world.reality
    disks: dict[str, list[Disk]] = {}
    for disk in reality.disks():
        disks.setdefault(disk.volume_id, []).append(disk)
    known = {row["uuid"]: row for row in servers}
    for row in volumes:
        key = row["id"]
        mine = [each for each in attachments if each["volume_id"] == key]
        attached = [each for each in mine if each["attach_status"] == "attached"]
        mapped = [each for each in mappings if each["volume_id"] == key]
        has = disks.pop(key, [])
        served = reality.served.get(f"{_PREFIX}{key}")
        facts = (
            f"volume {key} is {row['status']}, attachments {[each['attach_status'] for each in mine]}, mappings {len(mapped)}, "
            f"disks {len(has)} (open {sum(disk.is_open for disk in has)}), export {served is not None}, "
            f"let in {sorted(served.acl) if served else []}"
        )
        if row["status"] == Status.IN_USE:
            is_whole = (
                len(attached) == len(mine) == len(mapped) == len(has) == 1
                and mapped[0]["attachment_id"] == attached[0]["id"]
                and has[0].machine.uuid == mapped[0]["instance_uuid"] == attached[0]["instance_uuid"]
                and has[0].mountpoint == mapped[0]["device_name"]
                and has[0].is_open
                and served is not None
                and served.acl == {has[0].machine.host.initiator}
                and known.get(has[0].machine.uuid, {}).get("host") == has[0].machine.host.name
                and key in has[0].machine.host.connected
            )
            holder = mapped[0]["instance_uuid"] if mapped else ""
            if _is_off(world, known.get(holder)):
                is_whole = len(attached) == len(mine) == len(mapped) == 1 and not has
        else:
            is_whole = row["status"] in _MOVING or not (mine or mapped or has or served)
        if not is_whole:
            yield "S8", facts
    for key, left in disks.items():
        yield "S8", f"{len(left)} disks of volume {key}, which has no row"


def _sizes_agree(world: World, volumes: list[Any]) -> Iterator[Finding]:
    """S13: target and guest have the size of the row."""
    sizes = {row["id"]: row["size"] for row in volumes}
    for iqn, served in world.reality.served.items():
        size = sizes.get(iqn.removeprefix(_PREFIX))
        if size is not None and served.size_gib != size:
            yield "S13", f"{iqn} is served with {served.size_gib} GiB; its row says {size}"
    for disk in world.reality.disks():
        if disk.size_gib != sizes.get(disk.volume_id, disk.size_gib):
            yield (
                "S13",
                f"the guest of {disk.machine.uuid} sees {disk.size_gib} GiB of {disk.volume_id}; its row says {sizes[disk.volume_id]}",
            )


def _snapshots_agree(world: World, snapshots: list[Any]) -> Iterator[Finding]:
    """L3: the snapshots that are kept are those of the rows."""
    rows = {f"snapshot-{row['id']}": row["status"] for row in snapshots}
    kept = set(world.reality.snapshots)
    for name in sorted(kept - rows.keys()):
        yield "L3", f"the backend keeps {name}, which has no row"
    for name, status in rows.items():
        if status == "available" and name not in kept:
            yield "L3", f"{name} is available, and the backend has nothing of it"


def _nothing_leaks(world: World, volumes: list[Any], mappings: list[Any]) -> Iterator[Finding]:
    """L3: what is there is what the rows say."""
    reality = world.reality
    rows = {f"volume-{row['id']}": row for row in volumes}
    for name in sorted(reality.volumes.keys() - rows.keys()):
        yield "L3", f"the backend keeps {name}, which has no row"
    for name, row in rows.items():
        if row["status"] in _KEPT and name not in reality.volumes:
            yield "L3", f"{name} is {row['status']}, and the backend has nothing of it"
        if (stored := reality.volumes.get(name)) is not None and stored.size_gib != row["size"]:
            yield "S13", f"{name} has {row['size']} GiB, and {stored.size_gib} GiB are taken for it"
    exported = {f"{_PREFIX}{row['id']}" for row in volumes if row["provider_location"] is not None}
    if set(reality.served) != exported:
        yield "L3", f"exported are {sorted(reality.served)}; the rows say {sorted(exported)}"
    plugged = {(disk.machine.host.name, disk.volume_id) for disk in reality.disks()}
    known = {row["uuid"]: row for row in world.database.rows("SELECT uuid, vm_state FROM instances WHERE deleted = 0")}
    off = {row["volume_id"] for row in mappings if _is_off(world, known.get(row["instance_uuid"]))}
    connected = {(host.name, key) for host in reality.hosts.values() for key in host.connected if key not in off}
    if plugged != connected:
        yield "L3", f"connected are {sorted(connected)}; plugged are {sorted(plugged)}"


def _machines_are_servers(world: World, servers: list[Any]) -> Iterator[Finding]:
    """L3, of machines."""
    reality = world.reality
    living = {row["uuid"]: row for row in servers}
    for machine in reality.machines():
        row = living.get(machine.uuid)
        if row is None or row["host"] != machine.host.name or row["vm_state"] == "error":
            yield "L3", f"machine {machine.uuid} runs on {machine.host.name}; its row: {row}"
    for uuid in sorted(reality.died):
        yield "L3", f"something is left of machine {uuid}, which died; its row: {living.get(uuid)}"
    running = {machine.uuid for machine in reality.machines()}
    for uuid, row in living.items():
        if (row["vm_state"], row["task_state"]) == ("active", None) and uuid not in running:
            yield "L3", f"server {uuid} is active, and has no machine"
        if (row["vm_state"], row["task_state"]) == ("stopped", None) and uuid in running:
            yield "L3", f"server {uuid} is stopped, and its machine runs"
