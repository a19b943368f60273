"""All services in this process: the bus in memory, the database a file, everything in one folder that goes at the end."""

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from common.app.commands import UsersSender, opener
from common.app.config import Overrides
from common.app.service import Outside, services
from common.app.whole import read_whole
from common.base.clock import Clock
from common.db.migrate import upgrade
from common.rpc.options import RpcOptions
from common.rpc.session import client
from common.transport.memory import MemoryBuses

BUS = "memory://embedded"
PORTAL_PORT = 3260
"""The port that iSCSI has from IANA (RFC 7143, 14)."""


@asynccontextmanager
async def embedded(clock: Clock) -> AsyncIterator[UsersSender]:
    """A sender to services that run inside the block. Raises what their start raises."""
    outside = Outside(clock, opener(clock, MemoryBuses(clock)))
    with tempfile.TemporaryDirectory(prefix="lite-") as folder:
        overrides = embedded_overrides(Path(folder))
        whole = read_whole(None, overrides={"DEFAULT": overrides["DEFAULT"]})
        await upgrade(whole.database.connection, whole.branches, clock=clock)
        async with AsyncExitStack() as stack:
            for service in services().values():
                config = service.load((), {section: overrides[section] for section in ("DEFAULT", *_stanzas(service.name))}, ())
                for process in service.processes:
                    await stack.enter_async_context(process.run(config, outside))
            transport = await outside.open_bus(BUS, "demo")
            stack.push_async_callback(transport.close)
            rpc = await stack.enter_async_context(client(transport, clock=clock, options=RpcOptions()))
            yield UsersSender(rpc, bus=BUS)


def embedded_overrides(folder: Path) -> Overrides:
    """The configuration of services that share this folder and nothing else."""
    return {
        "DEFAULT": {
            "transport_url": BUS,
            "state_path": str(folder),
            "my_ip": "127.0.0.1",
            "enable_data_probe": "true",
        },
        "file": {"target_port": str(portal_port())},
    }


def portal_port() -> int:
    """iSCSI's own port if it is free on the loopback, else any free one."""
    for wanted in (PORTAL_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("the kernel gives a free port")


def _stanzas(service: str) -> tuple[str, ...]:
    return ("file",) if service == "cinder" else ()
