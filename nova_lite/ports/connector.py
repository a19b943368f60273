"""os-brick's place: what this host is to a storage system, and its end of a connection (attach-flow 6.3, 7.5).

Guarantees; the conformance suite's tests carry these numbers.
 1. `get_connector_properties` gives the keys of attach-flow 6.3; `initiator` is absent when the host has none.
 2. `connect_volume` returns when the volume can be used on this host. Connected already: the same answer.
 3. `disconnect_volume` returns when nothing of the connection is left on this host. Not connected: nothing happens.
 4. A failed `connect_volume` leaves nothing behind.
 5. `connections` tells which volumes this host has a connection of, as the host itself shows it; None where connecting makes nothing
    on the host, so that there is nothing to see.
"""

from collections.abc import Mapping
from typing import Any, Protocol


class Connector(Protocol):
    """Numbered guarantees at the head of this module."""

    async def get_connector_properties(self) -> dict[str, Any]:
        """{"host", "ip", "platform", "os_type", "multipath", "initiator"?, ...}"""
        ...

    async def connect_volume(self, connection_info: Mapping[str, Any]) -> dict[str, Any]:
        """{"type": "network"} when the machine itself talks to the storage, else {"type": "local" | "block", "path": ...}.

        Raises VolumeConnectionFailed, and Invalid for a driver_volume_type that nobody here knows.
        """
        ...

    async def disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        """Raises VolumeConnectionFailed while something of the connection is still there."""
        ...

    async def connections(self) -> set[str] | None:
        """Volume ids."""
        ...
