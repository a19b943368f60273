"""`lite bus`: the queues of the message bus, and what is wrong with them."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

import typer

from common.app.cli import print_json, print_table
from common.app.commands import AsJson, ConfigFiles, Debug, on_transport, tell
from common.app.exits import Exit
from common.app.management import ManagementUnavailable, default_urls, list_queues
from common.app.queues import QueueRow, implied, warnings_of
from common.app.whole import Whole, read_whole
from common.base.clock import Clock
from common.base.errors import Fault
from common.db.engine import open_database
from common.db.hosts import Hosts, ServiceRow, is_up
from common.transport.folder import BusFolder
from common.transport.kombu_url import folder_of
from common.transport.port import Transport
from common.transport.rabbit_url import SCHEMES, parse_rabbit_url

app = typer.Typer(help="The message bus.", no_args_is_help=True)


@app.callback()
def bus() -> None:
    """The message bus."""


@app.command()
def inspect(
    management_url: Annotated[
        str | None, typer.Option(metavar="URL", help="RabbitMQ's management API; default: http://HOST:15672 of transport_url.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when there is a warning.")] = False,
    json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> int:  # fmt: skip
    """Show the queues: what waits, who consumes, and what will break, with the option that mends it.

    RabbitMQ's management API tells all; without it, the queues that the installed services lead to are asked for one by one.
    """
    whole = read_whole(config_file, debug=debug)

    async def work(transport: Transport, clock: Clock) -> tuple["Seen", list[str]]:
        services = await _services(whole, clock)
        names = implied(whole.topics, [(row.topic, row.host) for row in services])
        seen = await _seen(transport, whole.common.bus.url, names, management_url)
        down_s = whole.common.service_down_time
        alive = [
            (row.topic, row.host) for row in services if is_up(row, now=row.read_at or clock.utcnow(), service_down_time_s=down_s)
        ]
        return seen, implied([], alive)

    seen, wanted = on_transport(whole.common, work)
    warnings = warnings_of(seen.rows, wanted=wanted)
    if json:
        found = [{"problem": each.problem, "mend": each.mend, "queues": each.queues} for each in warnings]
        print_json({"bus": seen.bus, "source": seen.source, "queues": [row.to_dict() for row in seen.rows], "warnings": found})
    else:
        tell(f"{len(seen.rows)} queues of {seen.bus}, by {seen.source}.")
        columns = ("Queue", "Kind", "Durable", "Ready", "Unacked", "Consumers", "Oldest")
        print_table(columns, [_cells(row) for row in seen.rows])
        for warning in warnings:
            tell(f"warning: {warning}")
    return Exit.REFUSED if strict and warnings else Exit.OK


@dataclass(frozen=True, slots=True)
class Seen:
    """The queues of a bus, and who told of them."""

    bus: str
    source: str
    rows: list[QueueRow]


async def _seen(transport: Transport, url: str, names: list[str], management_url: str | None) -> Seen:
    if (folder := folder_of(url)) is not None:
        names = await asyncio.to_thread(BusFolder(folder).queues)
        return Seen(transport.url, "the folder", await _asked(transport, names, kind="folder", is_durable=True))
    if url.startswith(SCHEMES):
        where = parse_rabbit_url(url)
        for api in [management_url] if management_url else default_urls(where):
            try:
                return Seen(transport.url, f"the management API {api}", await asyncio.to_thread(list_queues, api, where))
            except ManagementUnavailable as exc:
                if management_url:
                    raise
                tell(f"{exc}")
    return Seen(transport.url, "asking for the queues of the installed services", await _asked(transport, names))


async def _asked(
    transport: Transport, names: list[str], *, kind: str | None = None, is_durable: bool | None = None
) -> list[QueueRow]:
    depths = [(name, await transport.depth(name)) for name in names]
    return [QueueRow.of(name, depth, kind=kind, durable=is_durable) for name, depth in depths if depth is not None]


async def _services(whole: Whole, clock: Clock) -> list[ServiceRow]:
    """Those that ever said that they live; none when the database cannot say."""
    database = open_database(whole.database.connection, clock=clock, branches=whole.branches)
    try:
        await database.check()
        return await Hosts(database, clock).list()
    except Fault as exc:
        tell(f"The hosts of the services are not known: {exc}")
        return []
    finally:
        await database.close()


def _cells(row: QueueRow) -> tuple[object, ...]:
    oldest = None if row.oldest_s is None else f"{row.oldest_s:.0f} s"
    durable = None if row.durable is None else "yes" if row.durable else "no"
    return row.name, row.kind, durable, row.ready, row.unsettled, row.consumers, oldest
