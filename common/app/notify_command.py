"""`lite notify`: hear what services tell, and tell something by hand."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from common.app.cli import _cell
from common.app.commands import ConfigFiles, Debug, opener, tell, users_context
from common.app.logs import configure_logs
from common.app.rpc_command import _value
from common.app.whole import Whole, read_whole
from common.base.clock import Clock
from common.base.context import Context
from common.host.clock import SystemClock
from common.notify import Listener, NotificationOptions, NotificationResult, Notifier, Target
from common.transport.port import Transport
from common.wire.notification import Priority
from common.wire.values import WrongValue

app = typer.Typer(help="Notifications: what services tell whoever listens.", no_args_is_help=True)

_GIVE_BACK_S = 0.1
"""What comes after the last one that is shown goes back to its queue."""

Topics = Annotated[list[str] | None, typer.Option("--topic", help="Topic; repeat it for several. Default: notifications.")]
Exchange = Annotated[str | None, typer.Option(help="Exchange; default: control_exchange of the configuration, else openstack.")]


@app.command()
def listen(
    topic: Topics = None,
    pool: Annotated[str | None, typer.Option(help="Take the copies of this pool; its queue goes on to collect when you leave.")] = None,
    exchange: Exchange = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Print notifications as they come, until Ctrl-C.

    Without --pool it takes them: another listener of the topic does not get those that are printed here.
    """
    whole = read_whole(config_file, debug=debug)
    options = NotificationOptions(
        control_exchange=exchange or whole.common.control_exchange, prefetch=1, requeue_delay_s=_GIVE_BACK_S
    )

    async def work(transport: Transport, clock: Clock) -> None:
        printer = Printer(_json_line if as_json else _line, count)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, printer.ended.set)
        targets = [Target(name) for name in topic or ("notifications",)]
        async with Listener(transport, targets, [printer], clock=clock, pool=pool, allow_requeue=True, options=options):
            tell(f"Listening to {', '.join(target.topic for target in targets)} at {transport.url}. Ctrl-C ends it.")
            await printer.ended.wait()
        if printer.reader_gone is not None:
            raise printer.reader_gone

    _on_bus(whole, work)


@app.command()
def send(
    event_type: Annotated[str, typer.Argument(metavar="EVENT_TYPE", help="compute.instance.update ...")],
    payload: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="The payload; a VALUE that is JSON is sent as such, else as text.")
    ] = None,
    priority: Annotated[Priority, typer.Option(help="How important it is.")] = Priority.INFO,
    publisher_id: Annotated[str | None, typer.Option(help="Who tells it; default: cli.<this host>.")] = None,
    topic: Topics = None, exchange: Exchange = None,
    v1: Annotated[bool, typer.Option("--v1", help="Without an envelope (driver `messaging`), for listeners that know no other format.")] = False,
    config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Tell something; done when the bus has it."""
    whole = read_whole(config_file, debug=debug)
    topics = tuple(topic or ("notifications",))
    found = payload_of(payload or [])

    async def work(transport: Transport, clock: Clock) -> None:
        notifier = Notifier(
            transport, clock=clock, publisher_id=publisher_id or f"cli.{whole.common.host}", topics=topics,
            driver=("messaging" if v1 else "messagingv2",), control_exchange=exchange or whole.common.control_exchange,
        )  # fmt: skip
        notification = notifier.notification(users_context(), event_type, found, priority)
        for driver in notifier.drivers.values():
            try:
                await driver.notify(notification, retry=0)
            except WrongValue as exc:
                raise typer.BadParameter(f"the payload cannot be sent: {exc}") from exc

    _on_bus(whole, work)
    tell(f"{event_type} is on the bus for {', '.join(f'{name}.{priority}' for name in topics)}.")


class Printer:
    """An endpoint for every priority. It sets `ended` after `count` notifications, and when nobody reads any more (`reader_gone`)."""

    def __init__(self, show: Callable[[Mapping[str, Any]], str], count: int | None) -> None:
        self._show = show
        self._left = count
        self.ended = asyncio.Event()
        self.reader_gone: BrokenPipeError | None = None
        for priority in Priority:
            setattr(self, priority, self._method(priority))

    def _method(self, priority: Priority) -> Callable[..., Coroutine[Any, Any, NotificationResult]]:
        async def take(
            ctx: Context, publisher_id: str | None, event_type: str, payload: Any, metadata: Mapping[str, Any]
        ) -> NotificationResult:
            if self.ended.is_set():
                return NotificationResult.REQUEUE
            found = {
                **metadata, "priority": priority.upper(), "publisher_id": publisher_id, "event_type": event_type,
                "payload": payload, "context": ctx.to_dict(),
            }  # fmt: skip
            return self._print(found)

        return take

    def _print(self, found: Mapping[str, Any]) -> NotificationResult:
        try:
            sys.stdout.write(f"{self._show(found)}\n")
            sys.stdout.flush()
        except BrokenPipeError as exc:
            self.reader_gone = exc
            self.ended.set()
            return NotificationResult.REQUEUE
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.ended.set()
        return NotificationResult.HANDLED


def payload_of(words: list[str]) -> Mapping[str, Any]:
    """The payload that KEY=VALUE words say."""
    found = {}
    for word in words:
        key, mark, value = word.partition("=")
        if not mark or not key:
            raise typer.BadParameter(f"{word!r} is no part of a payload; wanted: KEY=VALUE")
        found[key] = _value(value)
    return found


def _json_line(found: Mapping[str, Any]) -> str:
    return json.dumps(found, default=str)


def _line(found: Mapping[str, Any]) -> str:
    names = ("timestamp", "priority", "publisher_id", "event_type")
    shown = [_cell(found[name], sys.stdout) for name in names]
    return "  ".join([*shown, json.dumps(found["payload"], default=str)])


def _on_bus(whole: Whole, work: Callable[[Transport, Clock], Coroutine[Any, Any, None]]) -> None:
    config = whole.common
    configure_logs(service="cli", host=config.host, debug=config.debug, log_format=config.log_format, quiet=True)

    async def run() -> None:
        clock = SystemClock()
        async with _bus(whole, clock) as transport:
            await work(transport, clock)

    asyncio.run(run())


@asynccontextmanager
async def _bus(whole: Whole, clock: Clock) -> AsyncIterator[Transport]:
    transport = await opener(clock)(whole.common.transport_url, "cli.notify")
    try:
        yield transport
    finally:
        await transport.close()
