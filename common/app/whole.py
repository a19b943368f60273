"""What `lite` knows without knowing any service: the bus and the database that a configuration names, and who is installed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.app.config import Overrides, load
from common.app.options import CommonConfig, DatabaseConfig, common_sections, read_common
from common.app.service import Service, services
from common.db.branch import Branch
from common.machine.saga import Saga

DEFAULT_EXCHANGE = "openstack"


@dataclass(frozen=True, slots=True)
class Whole:
    """A configuration as far as it is everybody's."""

    common: CommonConfig
    database: DatabaseConfig
    installed: tuple[Service, ...]
    files: tuple[Path, ...]

    @property
    def branches(self) -> list[Branch]:
        """The migrations of every service that is installed."""
        return [service.migrations for service in self.installed]

    @property
    def topics(self) -> list[str]:
        """The topics of all contracts that are installed."""
        found = {contract.__rpc_route__.topic for service in self.installed for contract in service.contracts}
        return sorted(found)

    @property
    def sagas(self) -> dict[str, Saga]:
        """The sagas of every service that is installed, by name."""
        return {saga.name: saga for service in self.installed for saga in service.sagas}

    def exchange_of(self, topic: str) -> str:
        """The control exchange of a topic that an installed service has; else oslo.messaging's default."""
        for service in self.installed:
            for contract in service.contracts:
                route = contract.__rpc_route__
                if (topic == route.topic or topic.startswith(f"{route.topic}.")) and route.exchange:
                    return route.exchange
        return DEFAULT_EXCHANGE


def read_whole(files: Sequence[Path] | None, *, debug: bool = False, overrides: Overrides | None = None) -> Whole:
    """What the files say that is everybody's. Raises Misconfigured."""
    installed = tuple(services().values())
    given = dict(overrides or {})
    if debug:
        given["DEFAULT"] = {**given.get("DEFAULT", {}), "debug": "true"}
    foreign = [section for service in installed for section in service.sections()]
    settings = load(files or [], common_sections(control_exchange=DEFAULT_EXCHANGE), overrides=given, foreign=foreign)
    common, database = read_common(settings)
    return Whole(common=common, database=database, installed=installed, files=tuple(files or ()))
