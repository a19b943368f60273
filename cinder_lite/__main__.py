"""cinder-lite: cinder's processes, and its users' verbs."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cinder_lite.config import CinderConfig, load_cinder
from cinder_lite.contract import ServiceInfo, Snapshot, SnapshotStatus, Volume, VolumeAPI, VolumeStatus
from cinder_lite.domain.snapshot import FINAL_STATES as SNAPSHOT_FINAL
from cinder_lite.domain.volume import FINAL_STATES
from cinder_lite.errors import InvalidInput
from cinder_lite.service.about import SERVICE
from common.app.cli import print_json, print_properties, print_table, run_cli
from common.app.commands import (
    AsJson,
    ConfigFiles,
    Debug,
    UsersSender,
    Wait,
    load,
    on_bus,
    run as run_process,
    tell,
    users_context,
)
from common.app.following import follow
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, NotFound
from common.wire.values import to_primitive

app = typer.Typer(
    name="cinder-lite",
    help="The volume service: volumes, and the backends that keep them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

T = TypeVar("T")
VolumeName = Annotated[str, typer.Argument(metavar="VOLUME", help="Name or id of a volume.")]
SnapshotName = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Name or id of a snapshot.")]
PROCESSES = ("api", "scheduler", "volume")


class RequestFailed(Broken):
    """Volume {volume} is {status}: {reason}"""


class SnapshotFailed(Broken):
    """Snapshot {snapshot} is {status}: {reason}"""


@app.command()
def run(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help=f"One of: {', '.join(PROCESSES)}.")],
    config_file: ConfigFiles = None, debug: Debug = False,
) -> int:  # fmt: skip
    """Run a process until SIGTERM; logs to stderr."""
    if process not in PROCESSES:
        raise typer.BadParameter(f"there is no process {process!r}; known: {', '.join(PROCESSES)}")
    return run_process(SERVICE, process, config_file, debug=debug)


@app.command(context_settings={"ignore_unknown_options": True})
def create(
    size: Annotated[
        str | None, typer.Argument(metavar="[SIZE]", help="Size in GiB, a whole number; may be left out for a copy.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The new volume's name.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Name or id of a snapshot whose bytes it is to have.")] = None,
    source_volid: Annotated[str | None, typer.Option(help="Name or id of a volume that it is to be a copy of.")] = None,
    volume_type: Annotated[str | None, typer.Option(help="A backend's volume_backend_name.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    wait: Wait = False, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Create a volume, empty or as a copy of a snapshot or a volume."""
    if size is None and snapshot is None and source_volid is None:
        raise InvalidInput(reason="SIZE is missing; only a copy (--snapshot, --source-volid) has one by itself")
    gib = None if size is None else _size(size)
    ctx = users_context()

    async def work(cinder: VolumeAPI, clock: Clock) -> Volume:
        volume = await cinder.create(
            ctx, size=gib, name=name, description=description, volume_type=volume_type, snapshot_id=snapshot,
            source_volid=source_volid,
        )  # fmt: skip
        return await _settled(cinder, ctx, volume, VolumeStatus.AVAILABLE, clock) if wait else volume

    _show(_on_cinder(config_file, debug, work), json=json)


@app.command("list")
def list_volumes(json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """List the volumes."""
    ctx = users_context()
    volumes = _on_cinder(config_file, debug, lambda cinder, clock: cinder.get_all(ctx))
    if json:
        print_json(to_primitive(volumes))
        return
    print_table(
        ("ID", "Status", "Name", "Size", "Volume Type", "Bootable", "Attached to"),
        [
            (row.id, row.status, row.display_name, row.size, row.volume_type, str(row.bootable).lower(), _attached_to(row))
            for row in volumes
        ],
    )


@app.command()
def show(volume: VolumeName, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Show a volume, who has it, and what failed last."""
    ctx = users_context()
    _show(_on_cinder(config_file, debug, lambda cinder, clock: cinder.get(ctx, volume_id=volume)), json=json)


@app.command()
def delete(
    volume: Annotated[list[str], typer.Argument(metavar="VOLUME...", help="Names or ids of volumes.")],
    wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Delete volumes."""
    ctx = users_context()

    async def work(cinder: VolumeAPI, clock: Clock) -> None:
        for name in volume:
            found = await cinder.get(ctx, volume_id=name)
            await cinder.delete(ctx, volume_id=found.id)
            if wait:
                await _gone(cinder, ctx, found, clock)
            tell(f"Volume {name} is deleted." if wait else f"Request to delete volume {name} has been accepted.")

    _on_cinder(config_file, debug, work)


@app.command(context_settings={"ignore_unknown_options": True})
def extend(
    volume: VolumeName,
    new_size: Annotated[str, typer.Argument(metavar="NEW_SIZE", help="Size in GiB that it is to have, a whole number.")],
    wait: Wait = False, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Make a volume larger, attached or not; the guest sees it."""
    gib = _size(new_size, "NEW_SIZE")
    ctx = users_context()

    async def work(cinder: VolumeAPI, clock: Clock) -> Volume:
        found = await cinder.get(ctx, volume_id=volume)
        await cinder.extend(ctx, volume_id=found.id, new_size=gib)
        if not wait:
            return await cinder.get(ctx, volume_id=found.id)
        now = await _settled(cinder, ctx, found, found.status, clock)
        if now.size < gib:
            raise RequestFailed(volume=now.label, status=f"{now.status} with {now.size} GiB", reason=_why(now))
        return now

    _show(_on_cinder(config_file, debug, work), json=json)


@app.command("snapshot-create")
def snapshot_create(
    volume: VolumeName,
    name: Annotated[str | None, typer.Option(help="The new snapshot's name.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    wait: Wait = False, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Take a snapshot of a volume, attached or not."""
    ctx = users_context()

    async def work(cinder: VolumeAPI, clock: Clock) -> Snapshot:
        made = await cinder.create_snapshot(ctx, volume_id=volume, name=name, description=description)
        if not wait:
            return made
        found = await _followed(cinder, ctx, made, clock, what=f"snapshot {made.label}")
        if found is None or found.status is not SnapshotStatus.AVAILABLE:
            raise SnapshotFailed(snapshot=made.label, status=found.status if found else "gone", reason=_why(found or made))
        return found

    _show_snapshot(_on_cinder(config_file, debug, work), json=json)


@app.command("snapshot-list")
def snapshot_list(json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """List the snapshots."""
    ctx = users_context()
    rows: list[Snapshot] = _on_cinder(config_file, debug, lambda cinder, clock: cinder.get_all_snapshots(ctx))
    if json:
        print_json(to_primitive(rows))
        return
    shown = [(row.id, row.volume_id, row.status, row.display_name, row.volume_size) for row in rows]
    print_table(("ID", "Volume ID", "Status", "Name", "Size"), shown)


@app.command("snapshot-show")
def snapshot_show(snapshot: SnapshotName, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Show a snapshot, and what failed last."""
    ctx = users_context()
    _show_snapshot(_on_cinder(config_file, debug, lambda cinder, clock: cinder.get_snapshot(ctx, snapshot_id=snapshot)), json=json)


@app.command("snapshot-delete")
def snapshot_delete(
    snapshot: Annotated[list[str], typer.Argument(metavar="SNAPSHOT...", help="Names or ids of snapshots.")],
    wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Delete snapshots."""
    ctx = users_context()

    async def work(cinder: VolumeAPI, clock: Clock) -> None:
        for name in snapshot:
            found = await cinder.get_snapshot(ctx, snapshot_id=name)
            await cinder.delete_snapshot(ctx, snapshot_id=found.id)
            if wait and (left := await _followed(cinder, ctx, found, clock, what=f"deleting snapshot {found.label}")) is not None:
                raise SnapshotFailed(snapshot=left.label, status=left.status, reason=_why(left))
            tell(f"Snapshot {name} is deleted." if wait else f"Request to delete snapshot {name} has been accepted.")

    _on_cinder(config_file, debug, work)


@app.command("force-detach")
def force_detach(
    volume: VolumeName,
    attachment: Annotated[str | None, typer.Option(help="Which attachment, when there are several.")] = None,
    json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Put every host out of a volume and end its attachment; the compute host then takes the disk from the machine."""
    ctx = users_context().elevated()
    _show(
        _on_cinder(config_file, debug, lambda cinder, clock: cinder.force_detach(ctx, volume_id=volume, attachment_id=attachment)),
        json=json,
    )


@app.command("reset-state")
def reset_state(
    volume: VolumeName,
    state: Annotated[str, typer.Option(help="available, error or in-use.")],
    json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Bring a volume to a state that its attachments and its backend bear out."""
    ctx = users_context().elevated()
    _show(_on_cinder(config_file, debug, lambda cinder, clock: cinder.reset_status(ctx, volume_id=volume, status=state)), json=json)


@app.command("service-list")
def service_list(json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """List the processes of all services, and whether they are alive."""
    ctx = users_context()
    rows: list[ServiceInfo] = _on_cinder(config_file, debug, lambda cinder, clock: cinder.services(ctx))
    if json:
        print_json(to_primitive(rows))
        return
    print_table(
        ("Binary", "Host", "Zone", "Status", "State", "Updated_at", "Disabled Reason"),
        [(row.binary, row.host, row.availability_zone, row.status, row.state, row.updated_at, row.disabled_reason) for row in rows],
    )


@app.command(context_settings={"ignore_unknown_options": True})
def rtstool(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND ARGUMENTS...",
            help="create, add-initiator, delete-initiator, get-targets, delete, verify, save, restore; without any: how each is used.",
        ),
    ] = None,
) -> int:
    """Change the kernel's LIO targets, as cinder-rtstool does; as root. A password of - is read from standard input."""
    from cinder_lite.targets.rtstool import Tool

    return Tool(sys.stdin, sys.stdout).run(words or [])


def _size(text: str, name: str = "SIZE") -> int:
    """Checked here as well as by the service: a slip of the finger should not need a running cloud to be told."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidInput(reason=f"{name} is {text!r}; wanted: a whole number of GiB, 1 or more")
    return int(text)


def _on_cinder(files: list[Path] | None, debug: bool, work: Callable[[VolumeAPI, Clock], Awaitable[T]]) -> T:
    config: CinderConfig = load(load_cinder, "cinder", files, debug=debug)

    async def on_cinder(sender: UsersSender, clock: Clock) -> T:
        return await work(VolumeAPI.over(sender, exchange=config.common.control_exchange), clock)

    return on_bus(config.common, on_cinder)


async def _settled(cinder: VolumeAPI, ctx: Context, volume: Volume, wanted: VolumeStatus, clock: Clock) -> Volume:
    found = await follow(
        lambda: cinder.get(ctx, volume_id=volume.id),
        is_final=lambda now: now.status in FINAL_STATES,
        shown=lambda now: f"volume {now.label}: {now.status}",
        tell=tell,
        clock=clock,
        what=f"volume {volume.label}",
    )
    if found.status is not wanted:
        raise RequestFailed(volume=found.label, status=found.status, reason=_why(found))
    return found


async def _gone(cinder: VolumeAPI, ctx: Context, volume: Volume, clock: Clock) -> None:
    async def look() -> Volume | None:
        try:
            return await cinder.get(ctx, volume_id=volume.id)
        except NotFound:
            return None

    found = await follow(
        look,
        is_final=lambda now: now is None or now.status in FINAL_STATES,
        shown=lambda now: f"volume {volume.label}: {now.status if now else 'deleted'}",
        tell=tell,
        clock=clock,
        what=f"deleting volume {volume.label}",
    )
    if found is not None:
        raise RequestFailed(volume=found.label, status=found.status, reason=_why(found))


async def _followed(cinder: VolumeAPI, ctx: Context, snapshot: Snapshot, clock: Clock, *, what: str) -> Snapshot | None:
    """The snapshot once nobody is at work on it; None when it is gone."""

    async def look() -> Snapshot | None:
        try:
            return await cinder.get_snapshot(ctx, snapshot_id=snapshot.id)
        except NotFound:
            return None

    return await follow(
        look,
        is_final=lambda now: now is None or now.status in SNAPSHOT_FINAL,
        shown=lambda now: f"snapshot {snapshot.label}: {now.status if now else 'deleted'}",
        tell=tell,
        clock=clock,
        what=what,
    )


def _why(found: Volume | Snapshot) -> str:
    return found.messages[0].user_message if found.messages else "no reason is recorded"


def _attached_to(volume: Volume) -> str:
    return ", ".join(row.instance_uuid or "" for row in volume.volume_attachment)


def _show(volume: Volume, *, json: bool) -> None:
    if json:
        print_json(to_primitive(volume))
        return
    shown: dict[str, object] = {
        "id": volume.id,
        "name": volume.display_name,
        "status": volume.status,
        "size": volume.size,
        "volume_type": volume.volume_type,
        "snapshot_id": volume.snapshot_id,
        "source_volid": volume.source_volid,
        "description": volume.display_description,
        "attachments": [
            f"{row.mountpoint or 'disk to be'} of server {row.instance_uuid} on {row.attached_host or 'no host yet'} "
            f"({row.attach_status}, attachment {row.id})"
            for row in volume.volume_attachment
        ],
        "os-vol-host-attr:host": volume.host,
        "bootable": str(volume.bootable).lower(),
        "multiattach": volume.multiattach,
        "created_at": volume.created_at,
        "updated_at": volume.updated_at,
    }
    if volume.messages:
        latest = volume.messages[0]
        shown["fault"] = f"{latest.user_message} ({latest.created_at}, {latest.request_id})"
    print_properties(shown)


def _show_snapshot(snapshot: Snapshot, *, json: bool) -> None:
    if json:
        print_json(to_primitive(snapshot))
        return
    shown: dict[str, object] = {
        "id": snapshot.id,
        "name": snapshot.display_name,
        "status": snapshot.status,
        "volume_id": snapshot.volume_id,
        "size": snapshot.volume_size,
        "description": snapshot.display_description,
        "os-extended-snapshot-attributes:progress": snapshot.progress,
        "created_at": snapshot.created_at,
        "updated_at": snapshot.updated_at,
    }
    if snapshot.messages:
        latest = snapshot.messages[0]
        shown["fault"] = f"{latest.user_message} ({latest.created_at}, {latest.request_id})"
    print_properties(shown)


def main() -> None:
    """The command `cinder-lite`."""
    raise SystemExit(run_cli(app, name="cinder-lite"))


if __name__ == "__main__":
    main()
