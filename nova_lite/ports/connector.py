"""os-brick's place: what this host is to a storage system, and its end of a connection (attach-flow 6.3, 7.5).

Guarantees; the conformance suite's tests carry these numbers.
 1. `get_connector_properties` gives the keys of attach-flow 6.3; `initiator` is absent when the host has none.
 2. `connect_volume` returns when the volume can be used on this host. Connected already: the same answer.
 3. `disconnect_volume` returns when nothing of the connection is left on this host. Not connected: nothing happens.
 4. A failed `connect_volume` leaves nothing behind.
 5. `connections` tells which volumes this host has a connection of, as the host itself shows it; None where connecting makes nothing
    on the host, so that there is nothing to see.
 6. A device whose size is not that of connection_info["volume_size"] (GiB), where it is there, is another volume: `connect_volume`
    refuses it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

VOLUME_SIZE = "volume_size"
"""The key of a connection_info, ours, under which a flow puts the GiB of the volume's row."""

_GIB = 1024**3


def size_flaw(size_gib: int | None, found: int, *, shown: str) -> str | None:
    """Why a device of `found` bytes, seen as `shown`, cannot be a volume of that size; None: it can (CVE-2023-2088).

    Storage may round a volume up to whole extents, so up to one GiB more is right. size_gib None: nobody said.
    """
    if size_gib is None or size_gib * _GIB <= found < (size_gib + 1) * _GIB:
        return None
    return f"{shown} has {found} bytes, and the volume has {size_gib} GiB: it is another one"


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
