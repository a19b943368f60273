"""From `transport_url` to a transport: the only file that names all adapters.

Each is imported when it is asked for: a tenth of a second of a command's start, and the memory of libraries that nobody uses.
"""

from typing import TYPE_CHECKING

from common.base.clock import Clock
from common.base.errors import Misconfigured
from common.transport.port import Transport
from common.transport.rabbit_settings import RabbitSettings
from common.transport.rabbit_url import parse_rabbit_url, without_password

if TYPE_CHECKING:
    from common.transport.memory import MemoryBuses

__all__ = ["SCHEMES", "open_transport", "without_password"]

SCHEMES = (
    "memory://name",
    "rabbit://user:password@host:port/vhost",
    "amqp://user:password@host:port/vhost",
    "kombu+filesystem:///folder",
    "kombu+<kombu URL>",
)
"""The forms of transport_url, as an operator may write them."""

_RABBIT_DEFAULTS = RabbitSettings()


async def open_transport(
    url: str,
    *,
    clock: Clock,
    connection_name: str,
    rabbit: RabbitSettings = _RABBIT_DEFAULTS,
    buses: "MemoryBuses | None" = None,
) -> Transport:
    """A connected transport.

    connection_name   how the broker's lists call this process
    rabbit            how `rabbit://` and `amqp://` are connected to; options in the URL win
    buses             what `memory://name` means; whoever opens several transports of one process holds it
    Raises Misconfigured for a URL that is not of a form in SCHEMES, BusUnavailable when nobody answers there.
    """
    scheme, mark, rest = url.partition("://")
    match scheme if mark else "":
        case "memory":
            from common.transport.memory import MemoryTransport

            if buses is None:
                raise Misconfigured(reason=f"transport_url {url}: memory works only where all services are one process")
            return MemoryTransport(buses.bus(rest), name=rest)
        case "rabbit":
            from common.transport.rabbit import RabbitTransport

            where = parse_rabbit_url(url)
            return await RabbitTransport.connect(where, clock=clock, connection_name=connection_name, settings=rabbit)
        case "amqp":
            from common.transport.amqp import AmqpTransport

            where = parse_rabbit_url(url)
            return await AmqpTransport.connect(where, clock=clock, connection_name=connection_name, settings=rabbit)
        case kombu if kombu.startswith("kombu+"):
            from common.transport.kombu import KombuTransport

            return await KombuTransport.connect(url, clock=clock, connection_name=connection_name)
        case _:
            reason = f"transport_url {without_password(url)!r} is of no known form; known: {', '.join(SCHEMES)}"
            raise Misconfigured(reason=reason)
