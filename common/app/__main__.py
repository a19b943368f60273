"""lite: the bus and the whole. It knows no service; those that are installed tell it about themselves."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from common.app import completion
from common.app.cli import run_cli
from common.app.commands import ConfigFiles, Debug, UsersSender, on_bus, tell
from common.app.lazy import Later, LazyGroup
from common.app.logs import configure_logs
from common.app.service import services
from common.app.whole import Whole, read_whole
from common.base.clock import Clock
from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.rpc.contract import Sender

GROUP = "lite.commands"
"""Entry points of commands that other packages bring: the name of a command -> a Typer, or a function of its parameters."""


class Commands(LazyGroup):
    """Those of other modules, and of other packages."""

    later = {
        "doctor": Later("common.app.doctor_command:doctor", "Compare the rows with what targets, hosts and machines really have."),
        "where": Later("common.app.where_command:where", "Tell where a request is now: process, host, step or queue."),
        "asyncapi": Later("common.app.contract_command:asyncapi", "Print an AsyncAPI 3.0 document of all contracts."),
        "failpoints": Later("common.app.failpoints_command:failpoints", "List the places at which a process can be made to die."),
        "rpc": Later("common.app.rpc_command:app", "Send any message to any server."),
        "dlq": Later("common.app.dlq_command:app", "Dead letters: messages that no server could serve, with the reason."),
        "flow": Later("common.app.flow_command:app", "Flows: what was begun, how far each is, and those that stopped."),
        "bus": Later("common.app.bus_command:app", "The message bus."),
        "db": Later("common.app.db_command:app", "The database's tables."),
        "contract": Later("common.app.contract_command:app", "The contracts of the installed services."),
        "notify": Later("common.app.notify_command:app", "Notifications: what services tell whoever listens."),
        **{entry.name: Later(entry.value) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)},
    }


app = typer.Typer(
    name="lite",
    cls=Commands,
    help="All services of this machine, the bus between them, and the database under them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Configuration files.", no_args_is_help=True)
app.add_typer(config_app, name="config")

DEMOS = "lite.demos"
Scenario = Callable[[Sender, Clock, Callable[[str], None]], Awaitable[None]]


@app.command()
def up(config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Start every service, each a process, and keep them until Ctrl-C."""
    from common.app.up import everything

    whole = read_whole(config_file, debug=debug)
    configure_logs(service="lite", host=whole.common.host, debug=whole.common.debug, log_format=whole.common.log_format)

    async def stay() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with everything(whole, SystemClock()) as children:
            tell(
                f"\n{len(children.pids)} processes are up. In a second terminal: lite demo, nova-lite list, cinder-lite service-list."
            )
            tell("Ctrl-C ends them.\n")
            await stop.wait()

    asyncio.run(stay())


@app.command()
def demo(
    embedded: Annotated[bool, typer.Option("--embedded", help="Start all services inside this process, for this demo only.")] = False,
    config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Attach a volume and look at its bytes.

    On the services that the configuration names; start them by `lite up`, or use --embedded.
    """
    scenario = _scenario()
    if embedded:
        if config_file:
            raise typer.BadParameter("--embedded has a configuration of its own; leave out --config-file")
        _embedded_demo(scenario, debug=debug)
        return
    whole = read_whole(config_file, debug=debug)

    async def work(sender: UsersSender, clock: Clock) -> None:
        await scenario(sender, clock, typer.echo)

    typer.echo(f"{'bus':>9}  {_bus(whole)}")
    on_bus(whole.common, work)


def _embedded_demo(scenario: Scenario, *, debug: bool) -> None:
    from common.app.embedded import embedded

    configure_logs(service="demo", host="localhost", debug=debug, quiet=not debug)

    async def run() -> None:
        clock = SystemClock()
        async with embedded(clock) as sender:
            typer.echo(f"{'bus':>9}  in this process; database SQLite; volumes are files")
            await scenario(sender, clock, typer.echo)

    asyncio.run(run())


@config_app.command("sample")
def config_sample(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="nova or cinder.", autocompletion=completion.installed)],
) -> None:
    """Print every option of a service with its meaning and default, as a configuration file."""
    from common.app.config_sample import sample

    known = services()
    if service not in known:
        raise typer.BadParameter(f"there is no service {service!r}; installed: {', '.join(known)}")
    typer.echo(sample(known[service].sections()), nl=False)


@config_app.command("check")
def config_check(config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Read the files as every service would, and say what is wrong or odd in them."""
    from common.app.service import neighbours

    known = services()
    for service in known.values():
        for warning in service.load(config_file or [], {}, neighbours(service.name, known)).warnings:
            tell(f"warning: {service.name}: {warning}")
    tell("The configuration can be used.")


def _scenario() -> Scenario:
    found: list[Any] = [entry.load() for entry in entry_points(group=DEMOS)]
    if not found:
        raise Misconfigured(reason=f"no demo is installed: nothing has an entry point of the group {DEMOS}")
    scenario: Scenario = found[0]
    return scenario


def _bus(whole: Whole) -> str:
    from common.transport.url import without_password

    return without_password(whole.common.transport_url)


def main() -> None:
    """The command `lite`."""
    raise SystemExit(run_cli(app, name="lite"))


if __name__ == "__main__":
    main()
