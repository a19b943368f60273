"""A target: makes a volume reachable for a host (cinder.volume.targets, attach-flow 7.2).

It is given values and gives values: what is to be remembered goes back to the caller, who saved the intent before.

Guarantees; the conformance suite's tests carry these numbers.
 1. `create_export` returns when the export is there and seen to be there. There already with the same path and
    credentials: the same answer. There with others, or half made: it is mended.
 2. `initialize_connection` returns when the initiator of the connector, and nobody else, is let in; twice is once.
 3. `terminate_connection` returns when that initiator is let in no longer and its sessions are gone; not there: nothing happens.
 4. `remove_export` returns when the export was seen gone. Gone already: nothing happens.
 5. `exports` tells what the target really has, by IQN (or by name for `local`).
 6. `validate_connector` refuses a connector that lacks what this target needs, naming it: InvalidConnectorException.
 7. No secret appears in a log line or an error.
 8. A failed `create_export` leaves nothing.
 9. `connections` tells of each of these exports what it serves, who is let in and whose sessions are open, as the target has it.
10. `extend_target` returns when whoever asks for the size from then on is told `new_size`, which the path has already. Who was let in
    stays so, and nobody else is. A session may be ended for it; its initiator takes it up again, and nothing that it was told is
    written gets lost. Served in that size already, or not exported: nothing happens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cinder_lite.contract import Volume


@dataclass(frozen=True, slots=True, repr=False)
class Chap:
    """A CHAP pair. Its repr hides the password."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Chap(username={self.username!r}, password=***)"

    @property
    def provider_auth(self) -> str:
        """The form of volumes.provider_auth: "CHAP <username> <password>"."""
        return f"CHAP {self.username} {self.password}"


@dataclass(frozen=True, slots=True)
class Export:
    """A volume and how it is, or is to be, exported.

    path   what `VolumeDriver.local_path` gave
    chap   None for a target without credentials
    """

    volume: Volume
    path: str
    chap: Chap | None = None


@dataclass(frozen=True, slots=True)
class ExportState:
    """An export as the target has it.

    path       what it serves; None when that is nothing, or cannot be told
    let_in     who may connect: initiator names, or hosts for `local`
    sessions   who is connected, once for each session; always empty for `local`, which has none
    """

    path: str | None
    let_in: frozenset[str] = frozenset()
    sessions: tuple[str, ...] = ()


class Target(Protocol):
    """Numbered guarantees at the head of this module."""

    @property
    def kind(self) -> str:
        """ "tgt", "local" ...: what the demo says it uses."""
        ...

    @property
    def needs_chap(self) -> bool:
        """True when `Export.chap` must be given."""
        ...

    async def check_for_setup_error(self) -> None:
        """Raises TargetUnavailable, PortalNotBound."""
        ...

    def validate_connector(self, connector: Mapping[str, Any]) -> None: ...

    async def create_export(self, export: Export) -> str:
        """provider_location: "<ip>:<port>,<tid> <iqn> <lun>" for iSCSI, the path for `local`. Raises ExportFailure."""
        ...

    async def extend_target(self, export: Export, new_size: int) -> None:
        """new_size   bytes. Raises ExportFailure while the old size is served."""
        ...

    async def remove_export(self, export: Export) -> None:
        """Raises ExportFailure while something of it is still there."""
        ...

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        """connection_info of attach-flow 6.1 without `serial`. Raises ExportFailure."""
        ...

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        """connector None: every initiator. Raises ExportFailure while one is still let in."""
        ...

    async def exports(self) -> set[str]:
        """The names of what is exported now; its IQNs for iSCSI."""
        ...

    async def connections(self) -> Mapping[str, ExportState]:
        """By the names of `exports`. Raises TargetUnavailable, and another Fault when the target's words cannot be used."""
        ...

    def export_name(self, volume: Volume) -> str:
        """The name under which `exports` lists this volume."""
        ...
