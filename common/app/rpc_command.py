"""`lite rpc`: publish any RPC message by hand, as `method key=value ...`; ask who lives; look at what passes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Annotated, Any

import typer

from common.app import completion
from common.app.cli import print_json
from common.app.commands import AsJson, ConfigFiles, Debug, UsersSender, on_bus, on_transport, tell, users_context
from common.app.exits import Exit
from common.app.listening import listen_until_told
from common.app.whole import Whole, read_whole
from common.base.clock import Clock
from common.base.errors import Timeout
from common.rpc.contract import Kind, Method, Route, Sender, methods_of
from common.rpc.dispatch import PING
from common.transport.port import Transport
from common.wire.failure import NoSuchMethod, UnsupportedVersion

app = typer.Typer(
    help="Send any message to any server.\n\nExit code 0: done; 1: the server's error; 2: no reply in time; 3: nobody listens.",
    no_args_is_help=True,
)

Topic = Annotated[
    str,
    typer.Argument(
        metavar="TOPIC[.SERVER]", help="compute, compute.cmp1, cinder-volume.host@backend ...", autocompletion=completion.topics
    ),
]
Name = Annotated[str, typer.Argument(metavar="METHOD", help="The method's name on the wire.", autocompletion=completion.methods)]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Arguments; a VALUE that is JSON is sent as such, else as text.")
]
Version = Annotated[str | None, typer.Option(help="RPC version; default: the contract's, else 1.0.")]
Namespace = Annotated[str | None, typer.Option(help="Namespace of the method.")]
Exchange = Annotated[str | None, typer.Option(help="Control exchange; default: the one that owns the topic, else openstack.")]
Seconds = Annotated[float | None, typer.Option(min=0.001, help="Seconds to wait; default: rpc_response_timeout.")]


@app.command("call")
def call_(
    topic: Topic, method: Name, arguments: Arguments = None, version: Version = None, namespace: Namespace = None,
    exchange: Exchange = None, timeout: Seconds = None, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Call a method and print its result as JSON."""
    whole = read_whole(config_file, debug=debug)
    route = _route(whole, topic, method, version, namespace, exchange, timeout)

    async def work(sender: UsersSender, clock: Clock) -> Any:
        return await sender.call(route, _method(route, method, Kind.CALL), users_context(), _arguments(arguments))

    print_json(on_bus(whole.common, work))


@app.command("cast")
def cast_(
    topic: Topic, method: Name, arguments: Arguments = None, version: Version = None, namespace: Namespace = None,
    exchange: Exchange = None, timeout: Seconds = None, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Send a request that nobody answers; done when the bus has it."""
    whole = read_whole(config_file, debug=debug)
    _cast(whole, _route(whole, topic, method, version, namespace, exchange, timeout), method, arguments)


@app.command()
def fanout(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="compute, cinder-volume ...", autocompletion=completion.topics)], method: Name,
    arguments: Arguments = None, version: Version = None, namespace: Namespace = None, exchange: Exchange = None,
    timeout: Seconds = None, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Send a request to every server of a topic."""
    whole = read_whole(config_file, debug=debug)
    _cast(whole, _route(whole, topic, method, version, namespace, exchange, timeout, is_fanout=True), method, arguments)


@app.command()
def ping(
    topic: Topic, count: Annotated[int, typer.Option(min=1, help="How often, once a second.")] = 1, exchange: Exchange = None,
    timeout: Seconds = None, config_file: ConfigFiles = None, debug: Debug = False,
) -> int:  # fmt: skip
    """Ask a server whether it lives. One without rpc_ping_enabled refuses, and so lives too."""
    whole = read_whole(config_file, debug=debug)
    route = Route(topic=topic, version="1.0", exchange=exchange or whole.exchange_of(topic), timeout_s=timeout)

    async def work(sender: UsersSender, clock: Clock) -> int:
        found = Pings()
        for number in range(count):
            if number:
                await clock.sleep(1.0)
            typer.echo(await found.ping(sender, route, clock))
        if count > 1:
            typer.echo(found.summary)
        return Exit.OK if len(found.round_trips_ms) == count else Exit.NO_REPLY

    return on_bus(whole.common, work)


@app.command()
def listen(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="compute, cinder-volume ...")],
    all_: Annotated[bool, typer.Option("--all", help="The requests to any server and to single servers too, not only fanout.")] = False,
    exchange: Exchange = None, json_: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Show messages to a topic as they pass, until Ctrl-C. Servers get theirs all the same; secrets are masked.

    As long as you listen, a message that no server takes is taken by you: its sender does not hear that nobody listens.
    On RabbitMQ the user needs leave to make queues named listen_... and to bind them; deploy's lite-cli has it not.
    """
    whole = read_whole(config_file, debug=debug)
    options = replace(whole.common.bus.rpc, control_exchange=exchange or whole.exchange_of(topic))

    async def work(transport: Transport, clock: Clock) -> None:
        await listen_until_told(transport, topic, options=options, is_all=all_, as_json=json_, clock=clock, tell=tell)

    on_transport(whole.common, work)


@dataclass
class Pings:
    """What became of some pings."""

    sent: int = 0
    round_trips_ms: list[float] = field(default_factory=list)

    async def ping(self, sender: Sender, route: Route, clock: Clock) -> str:
        """One more, as a line. Raises NobodyListens, BusUnavailable."""
        self.sent += 1
        began_s = clock.monotonic()
        try:
            answer = f"answers {await sender.call(route, _method(route, PING, Kind.CALL), users_context(), {})}"
        except (NoSuchMethod, UnsupportedVersion):
            answer = "answers; rpc_ping_enabled is off there"
        except Timeout as exc:
            if exc.is_remote:
                raise
            return f"{route}: no reply within {exc.timeout_s:g} s"
        self.round_trips_ms.append((clock.monotonic() - began_s) * 1000)
        return f"{route} {answer}  ({self.round_trips_ms[-1]:.1f} ms)"

    @property
    def summary(self) -> str:
        """How many came back, and how fast."""
        times = self.round_trips_ms
        shown = f"; {min(times):.1f} / {median(times):.1f} / {max(times):.1f} ms least, median, most" if times else ""
        return f"{self.sent} sent, {len(times)} answered{shown}"


def _cast(whole: Whole, route: Route, method: str, arguments: list[str] | None) -> None:
    async def work(sender: UsersSender, clock: Clock) -> None:
        await sender.cast(route, _method(route, method, Kind.CAST), users_context(), _arguments(arguments))

    on_bus(whole.common, work)
    tell(f"{method} is on the bus for {route}.")


def _route(
    whole: Whole, topic: str, method: str, version: str | None, namespace: str | None, exchange: str | None, timeout: float | None,
    *, is_fanout: bool = False,
) -> Route:  # fmt: skip
    return Route(
        topic=topic,
        version=version or _known_version(whole, topic, method, namespace) or "1.0",
        exchange=exchange or whole.exchange_of(topic),
        namespace=namespace,
        fanout=is_fanout,
        timeout_s=timeout,
    )


def _known_version(whole: Whole, topic: str, method: str, namespace: str | None) -> str | None:
    for service in whole.installed:
        for contract in service.contracts:
            route = contract.__rpc_route__
            is_its_topic = topic == route.topic or topic.startswith(f"{route.topic}.")
            if is_its_topic and route.namespace == namespace:
                known = methods_of(contract).get(method)
                return known.version if known else route.version
    return None


def _method(route: Route, name: str, kind: Kind) -> Method:
    return Method(name=name, kind=kind, version=route.version, parameters={}, optional=frozenset(), result=Any)


def _arguments(words: list[str] | None) -> Mapping[str, Any]:
    found = {}
    for word in words or []:
        key, mark, value = word.partition("=")
        if not mark or not key.isidentifier():
            raise typer.BadParameter(f"{word!r} is no argument; wanted: KEY=VALUE")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
