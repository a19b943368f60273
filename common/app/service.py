"""What a service tells the `lite` command about itself, through the entry point group `lite.services`.

common imports no service: a third party's service joins in the same way, by naming an object of this class.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from common.app.auditing import Auditor
from common.app.config import Overrides, Section
from common.app.options import CommonConfig, DatabaseConfig
from common.base.clock import Clock
from common.base.failpoints import OFF, Failpoints
from common.db.branch import Branch
from common.host.alone import hold_name
from common.machine.saga import Saga
from common.rpc.contract import Contract
from common.transport.port import Transport

if TYPE_CHECKING:  # every command reads this module, and few of them want a database
    from common.db.engine import Database

GROUP = "lite.services"

OpenBus = Callable[[str, str], Awaitable[Transport]]
"""(transport_url, connection name) -> an open transport; the embedded demo gives every process the same bus in memory."""


class OpenDatabase(Protocol):
    """`common.db.engine.open_database`, or what a simulation has in its place."""

    def __call__(self, connection: str, *, clock: Clock, branches: Sequence[Branch] = ()) -> "Database": ...


def open_database(connection: str, *, clock: Clock, branches: Sequence[Branch] = ()) -> "Database":
    """`common.db.engine.open_database`, imported when it is asked for."""
    from common.db import engine  # noqa: PLC0415

    return engine.open_database(connection, clock=clock, branches=branches)


class HoldName(Protocol):
    """`common.host.alone.hold_name`, or what a simulation has in its place."""

    def __call__(self, folder: Path, name: str, *, boot: str | None = None) -> AbstractContextManager[frozenset[str]]: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What a process does not make itself: time, its bus, its database, its name, and where a test makes it fail."""

    clock: Clock
    open_bus: OpenBus
    open_database: OpenDatabase = open_database
    hold_name: HoldName = hold_name
    failpoints: Failpoints = OFF


class ServiceConfig(Protocol):
    """What every service's configuration has."""

    @property
    def common(self) -> CommonConfig: ...
    @property
    def database(self) -> DatabaseConfig: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Process:
    """One kind of process. `run` serves inside its block and drains at its end. `binary` is its name in the services table."""

    name: str
    binary: str
    run: Callable[[Any, Outside], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something of a service that an operator asks about.

    subject   as flows have it: "server:<uuid>"
    name      what its users call it; empty: it has no name
    state     what is to be known of it, in the order in which it is shown: {"vm_state": "active", "task_state": None}
    related   subjects that it has to do with now: a server's volumes
    queues    names of the queues of those who work on it
    """

    subject: str
    name: str
    state: Mapping[str, object]
    related: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its id, without its kind."""
        return self.subject.partition(":")[2]


Find = Callable[["Database", Clock, str], Awaitable[list[Found]]]
"""(database, clock, a name, id or subject) -> what a service has of it; by its id also what is deleted."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What of a service only its own processes need, and commands that look into its tables.

    processes    in the order in which they are best started
    migrations   its alembic branch
    sagas        of the flows of all its processes
    find         what an operator means by a word
    auditor      compares its rows with what its hosts have, for `lite doctor`; None: nobody does
    """

    processes: tuple[Process, ...]
    migrations: Branch
    sagas: tuple[Saga, ...]
    find: Find
    auditor: Auditor | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service.

    name        "nova"; its command is nova-lite
    load        (files, overrides, sections of others that share the files) -> its configuration; raises Misconfigured
    sections    its sections, for samples
    contracts   what it offers on the bus; with them come the errors that it raises
    inside      where its Inside is, "module:NAME". It is read when it is first asked for: it brings the database's libraries, and
                most commands need none
    """

    name: str
    load: Callable[[Sequence[Path], Overrides, Sequence[Section]], ServiceConfig]
    sections: Callable[[], Sequence[Section]]
    contracts: tuple[type[Contract], ...]
    inside: str

    @property
    def processes(self) -> tuple[Process, ...]:
        return _read(self.inside).processes

    @property
    def migrations(self) -> Branch:
        return _read(self.inside).migrations

    @property
    def sagas(self) -> tuple[Saga, ...]:
        return _read(self.inside).sagas

    @property
    def find(self) -> Find:
        return _read(self.inside).find

    @property
    def auditor(self) -> Auditor | None:
        return _read(self.inside).auditor

    def process(self, name: str) -> Process:
        """The process of that name. Raises KeyError."""
        return {process.name: process for process in self.processes}[name]


@cache
def _read(place: str) -> Inside:
    module, _, name = place.partition(":")
    return cast(Inside, getattr(import_module(module), name))


def neighbours(name: str, known: Mapping[str, Service]) -> list[Section]:
    """The sections of the other services: one file may serve all of them."""
    return [section for service in known.values() if service.name != name for section in service.sections()]


def services() -> Mapping[str, Service]:
    """The services that are installed, by name."""
    return {entry.name: cast(Service, entry.load()) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}
