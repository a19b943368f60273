"""nova-lite: nova's processes, and its users' verbs."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

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
from common.base.clock import Clock
from common.base.context import Context
from common.wire.values import to_primitive
from nova_lite.clients.cinder import volumes
from nova_lite.clients.following import attached, booted, deleted, detached, powered
from nova_lite.config import NovaConfig, load_nova
from nova_lite.contract import BlockDeviceMapping, ComputeAPI, Instance, RebootType, VmState
from nova_lite.domain.flavor import FLAVORS
from nova_lite.service.about import SERVICE

app = typer.Typer(
    name="nova-lite",
    help="The compute service: servers, and the volumes attached to them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Server = Annotated[str, typer.Argument(metavar="SERVER", help="Name or id of a server.")]
Volume = Annotated[str, typer.Argument(metavar="VOLUME", help="Name or id of a volume.")]
PROCESSES = ("api", "compute")


@app.command()
def run(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help=f"One of: {', '.join(PROCESSES)}.")], config_file: ConfigFiles = None,
    debug: Debug = False,
) -> int:  # fmt: skip
    """Run a process until SIGTERM; logs to stderr."""
    if process not in PROCESSES:
        raise typer.BadParameter(f"there is no process {process!r}; known: {', '.join(PROCESSES)}")
    return run_process(SERVICE, process, config_file, debug=debug)


@app.command()
def boot(
    name: Annotated[str, typer.Argument(help="The new server's name.")],
    flavor: Annotated[str, typer.Option(help=f"Its size: {', '.join(FLAVORS)}.")],
    image: Annotated[str | None, typer.Option(help="Not yet: every machine boots what [qemu] kernel says, or nothing.")] = None,
    host: Annotated[str | None, typer.Option(help="Compute host; without one the emptiest is taken.")] = None,
    wait: Wait = False, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Boot a server."""
    ctx = users_context()

    async def work(sender: UsersSender, clock: Clock) -> Instance:
        nova = ComputeAPI.over(sender)
        server = await nova.create(ctx, name=name, flavor=flavor, image=image, host=host)
        return await booted(nova, ctx, server, tell=tell, clock=clock) if wait else server

    _show(on_bus(_config(config_file, debug).common, work), json=json)


@app.command("list")
def list_servers(json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """List the servers."""

    async def work(sender: UsersSender, clock: Clock) -> list[Instance]:
        return await ComputeAPI.over(sender).get_all(users_context())

    servers = on_bus(_config(config_file, debug).common, work)
    if json:
        print_json(to_primitive(servers))
        return
    print_table(
        ("ID", "Name", "Status", "Task State", "Power State", "Host"),
        [(row.uuid, row.display_name, row.status, row.task_state, row.power_state.name.lower(), row.host) for row in servers],
    )


@app.command()
def show(server: Server, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Show a server, its volumes, and what failed last."""
    ctx = users_context()

    async def work(sender: UsersSender, clock: Clock) -> tuple[Instance, list[BlockDeviceMapping]]:
        nova = ComputeAPI.over(sender)
        found = await nova.get(ctx, server=server)
        return found, await nova.volume_attachments(ctx, server=found.uuid)

    found, mappings = on_bus(_config(config_file, debug).common, work)
    _show(found, mappings, json=json)


@app.command()
def delete(server: Server, wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Delete a server; its volumes come free."""
    ctx = users_context()

    async def work(sender: UsersSender, clock: Clock) -> None:
        nova = ComputeAPI.over(sender)
        found = await nova.get(ctx, server=server)
        await nova.delete(ctx, server=found.uuid)
        if wait:
            await deleted(nova, ctx, found, tell=tell, clock=clock)

    on_bus(_config(config_file, debug).common, work)
    tell(f"Server {server} is deleted." if wait else f"Request to delete server {server} has been accepted.")


@app.command()
def stop(server: Server, wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Stop a server: its guest is asked to shut down, and its volumes stay attached."""
    _power(server, "stop", VmState.STOPPED, lambda nova, ctx, uuid: nova.stop(ctx, server=uuid), wait, config_file, debug)


@app.command()
def start(server: Server, wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Start a stopped server; it gets its volumes again."""
    _power(server, "start", VmState.ACTIVE, lambda nova, ctx, uuid: nova.start(ctx, server=uuid), wait, config_file, debug)


@app.command()
def reboot(
    server: Server,
    hard: Annotated[bool, typer.Option("--hard/--soft", help="Ask nobody; mends a server in error too.")] = False,
    wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Reboot a server: stop it and start it again, with its volumes."""
    kind = RebootType.HARD if hard else RebootType.SOFT
    _power(
        server, "reboot", VmState.ACTIVE, lambda nova, ctx, uuid: nova.reboot(ctx, server=uuid, reboot_type=kind),
        wait, config_file, debug,
    )  # fmt: skip


@app.command("volume-attach")
def volume_attach(
    server: Server, volume: Volume,
    device: Annotated[str | None, typer.Argument(metavar="DEVICE", help="Name of the disk, /dev/vdb; default: the next free one.")] = None,
    delete_on_termination: Annotated[bool, typer.Option(help="Delete the volume with the server.")] = False,
    wait: Wait = False, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Attach a volume to a server."""
    ctx = users_context()
    config = _config(config_file, debug)
    exchange = config.cinder_control_exchange

    async def work(sender: UsersSender, clock: Clock) -> BlockDeviceMapping:
        nova = ComputeAPI.over(sender)
        mapping = await nova.attach_volume(ctx, server=server, volume=volume, device=None if device in {None, "auto"} else device)
        if delete_on_termination:
            await nova.set_delete_on_termination(ctx, server=server, volume=volume, delete_on_termination=True)
        if wait:
            await attached(nova, volumes(sender, exchange=exchange), ctx, mapping, tell=tell, clock=clock)
        return mapping

    mapping = on_bus(config.common, work)
    if json:
        print_json(to_primitive(mapping))
    else:
        print_properties(
            {
                "device": mapping.device_name,
                "id": mapping.volume_id,
                "serverId": mapping.instance_uuid,
                "volumeId": mapping.volume_id,
                "attachment_id": mapping.attachment_id,
            }
        )


@app.command("volume-detach")
def volume_detach(
    server: Server, volume: Volume, wait: Wait = False, config_file: ConfigFiles = None, debug: Debug = False
) -> None:
    """Detach a volume from a server."""
    ctx = users_context()
    config = _config(config_file, debug)
    exchange = config.cinder_control_exchange

    async def work(sender: UsersSender, clock: Clock) -> None:
        nova, cinder = ComputeAPI.over(sender), volumes(sender, exchange=exchange)
        await nova.detach_volume(ctx, server=server, volume=volume)
        if wait:
            await detached(nova, cinder, ctx, server=server, volume=volume, tell=tell, clock=clock)

    on_bus(config.common, work)
    tell(f"Volume {volume} is detached." if wait else f"Request to detach volume {volume} has been accepted.")


@app.command("volume-attachments")
def volume_attachments(server: Server, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """List the volumes that a server has."""

    async def work(sender: UsersSender, clock: Clock) -> list[BlockDeviceMapping]:
        return await ComputeAPI.over(sender).volume_attachments(users_context(), server=server)

    mappings = on_bus(_config(config_file, debug).common, work)
    if json:
        print_json(to_primitive(mappings))
        return
    print_table(
        ("ID", "DEVICE", "SERVER ID", "VOLUME ID", "ATTACHMENT ID"),
        [(row.volume_id, row.device_name, row.instance_uuid, row.volume_id, row.attachment_id) for row in mappings],
    )


def _power(
    server: str, verb: str, wanted: VmState, ask: Callable[[ComputeAPI, Context, str], Awaitable[None]],
    wait: bool, files: list[Path] | None, debug: bool,
) -> None:  # fmt: skip
    ctx = users_context()

    async def work(sender: UsersSender, clock: Clock) -> None:
        nova = ComputeAPI.over(sender)
        found = await nova.get(ctx, server=server)
        await ask(nova, ctx, found.uuid)
        if wait:
            await powered(nova, ctx, found, verb=verb, wanted=wanted, tell=tell, clock=clock)

    on_bus(_config(files, debug).common, work)
    done = {"stop": "stopped", "start": "started", "reboot": "rebooted"}[verb]
    tell(f"Server {server} is {done}." if wait else f"Request to {verb} server {server} has been accepted.")


def _config(files: list[Path] | None, debug: bool) -> NovaConfig:
    return load(load_nova, "nova", files, debug=debug)


def _show(server: Instance, mappings: list[BlockDeviceMapping] | None = None, *, json: bool) -> None:
    if json:
        print_json({**to_primitive(server), "volumes_attached": to_primitive(mappings or [])})
        return
    shown: dict[str, object] = {
        "id": server.uuid,
        "name": server.display_name,
        "status": server.status,
        "OS-EXT-STS:vm_state": server.vm_state,
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:power_state": server.power_state.name.lower(),
        "OS-EXT-SRV-ATTR:host": server.host,
        "flavor": f"{server.flavor} ({server.vcpus} vCPU, {server.memory_mb} MiB, {server.root_gb} GiB)",
        "image": server.image_ref,
        "created": server.created_at,
        "updated": server.updated_at,
    }
    if mappings is not None:
        shown["os-extended-volumes:volumes_attached"] = [f"{row.device_name} = {row.volume_id}" for row in mappings]
    if server.fault is not None:
        shown["fault"] = f"{server.fault.message} (code {server.fault.code}, {server.fault.created_at}, {server.fault.request_id})"
    print_properties(shown)


def main() -> None:
    """The command `nova-lite`."""
    raise SystemExit(run_cli(app, name="nova-lite"))


if __name__ == "__main__":
    main()
