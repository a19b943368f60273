"""A TCP relay before a broker that can go silent without a word, as a switch or a firewall that forgot its connections does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK_BYTES = 65536


class Relay:
    """Passes bytes on until `stall`.

    Connections of that time never get a byte again, in neither direction, and are not closed: a FIN or a reset would tell the
    peers what they shall find out by themselves. New ones are accepted, and pass when `heal` was called.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._way = asyncio.Event()
        self._way.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def stall(self) -> None:
        self._way.clear()
        for pump in self._pumps:
            pump.cancel()

    def heal(self) -> None:
        self._way.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a peer."""
        self._writers.add(writer)
        await self._way.wait()
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(broker_writer)
        for pump in (_pump(reader, broker_writer), _pump(broker_reader, writer)):
            task = asyncio.ensure_future(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        """End all connections."""
        self.stall()
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def relay(target_port: int) -> AsyncIterator[Relay]:
    """A relay on a port of its own of 127.0.0.1, before `target_port` of the same."""
    made = Relay(target_port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
