"""A client of one machine's monitor: `qmp` with a socket and deadlines.

QEMU serves one client of a monitor at a time and lets the next one wait. So a client is opened for one operation and closed
after it, and a machine does not notice that nova-compute was restarted.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.qmp import Error, Event, Greeting, Message, ProtocolError, Qmp, Return

SOCKET = "qmp"
"""Name of the monitor's socket in the machine's folder."""

EVENTS_KEPT = 1000
"""Events that nobody waited for yet; older ones are dropped."""

_READ_BYTES = 65536


class QmpClient:
    """One conversation with the machine `name`.

    timeout_s   longest wait for the answer to a command that sets no limit of its own
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, name: str, timeout_s: float) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name
        self._timeout_s = timeout_s
        self._qmp = Qmp()
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._secrets: list[str] = []

    def hide(self, secret: str) -> None:
        """From now on show `***` in its place, should an error of the machine ever quote it."""
        if secret:
            self._secrets.append(secret)

    async def negotiate(self) -> None:
        """Wait for the greeting and enter command mode. Raises HypervisorUnavailable."""
        async with self._deadline("its greeting", self._timeout_s):
            while not isinstance(await self._next(), Greeting):
                pass
        await self.execute("qmp_capabilities")

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """What the machine returns.

        Raises HypervisorRefused (field `qmp_class`) when it answers with an error, and HypervisorUnavailable when it does not
        answer in time or is gone. After a deadline the command may still take effect.
        """
        number, request = self._qmp.send(command, arguments)
        async with self._deadline(command, self._timeout_s):
            self._writer.write(request)
            await self._writer.drain()
            while True:
                match await self._next():
                    case Return(id=answered, value=value) if answered == number:
                        return value
                    case Error(id=answered, kind=kind, text=text) if answered in {number, None}:
                        raise HypervisorRefused(name=self._name, command=command, reason=self._hidden(text), qmp_class=kind)
                    case Event() as event:
                        self._events.append(event)
                    case Greeting() | Return() | Error():
                        pass  # the answer to a command that was given up

    async def wait_event(self, wanted: Callable[[Event], bool], *, timeout_s: float) -> Event | None:
        """The first event since the last wait for which `wanted` is true; None when none comes in time.

        Events passed over are forgotten. Raises HypervisorUnavailable when the machine is gone.
        """
        while self._events:
            event = self._events.popleft()
            if wanted(event):
                return event
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._next()
                    if isinstance(message, Event) and wanted(message):
                        return message
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Hang up at once, whatever is still unwritten."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _next(self) -> Message:
        try:
            while (message := self._qmp.next_message()) is None:
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    raise HypervisorUnavailable(name=self._name, reason="it closed its monitor")
                self._qmp.receive_data(data)
        except (OSError, ProtocolError) as exc:
            raise HypervisorUnavailable(name=self._name, reason=f"its monitor: {exc}") from exc
        return message

    @asynccontextmanager
    async def _deadline(self, what: str, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as exc:
            reason = f"no answer to {what} within {timeout_s:g} s; it is stopped, or it waits for its storage"
            raise HypervisorUnavailable(name=self._name, reason=reason) from exc
        except OSError as exc:
            raise HypervisorUnavailable(name=self._name, reason=f"its monitor: {exc.strerror or exc}") from exc

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


@asynccontextmanager
async def open_qmp(folder: Path, *, name: str, timeout_s: float) -> AsyncIterator[QmpClient]:
    """A client of the machine whose folder this is, ready for commands. Raises HypervisorUnavailable."""
    client = await _connect(folder, name=name, timeout_s=timeout_s)
    try:
        await client.negotiate()
        yield client
    finally:
        await client.close()


async def _connect(folder: Path, *, name: str, timeout_s: float) -> QmpClient:
    try:
        here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        raise HypervisorUnavailable(name=name, reason="there is no such machine on this host") from exc
    try:
        async with asyncio.timeout(timeout_s):
            # A socket's address holds 107 bytes; through the open folder it is short, wherever the folder lies.
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{here}/{SOCKET}")
    except TimeoutError as exc:
        raise HypervisorUnavailable(name=name, reason=f"its monitor took no connection within {timeout_s:g} s") from exc
    except OSError as exc:
        raise HypervisorUnavailable(name=name, reason=f"it is not running: {exc.strerror}") from exc
    finally:
        os.close(here)
    return QmpClient(reader, writer, name=name, timeout_s=timeout_s)
