"""A connector in memory that fails when told to; implements `nova_lite.ports.connector`. For tests of what uses the port."""

from collections.abc import Mapping
from typing import Any

from common.base.errors import Invalid
from common.testing.script import Script, When
from nova_lite.brick.properties import connector_properties
from nova_lite.errors import VolumeConnectionFailed
from nova_lite.ports.connector import VOLUME_SIZE, size_flaw


class FakeConnector:
    """Knows `local` and `iscsi`.

    connected   volume ids that are connected on this host now
    sizes       volume id -> bytes that its storage shows, where that is to be compared
    calls       (method, volume id) of what was asked, in order
    """

    def __init__(self, *, host: str = "cmp1", ip: str = "127.0.0.1", initiator: str | None = "iqn.fake:cmp1") -> None:
        self.connected: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.calls: list[tuple[str, str | None]] = []
        self._properties = connector_properties(host=host, ip=ip, initiator=initiator)
        self.script = Script()

    async def get_connector_properties(self) -> dict[str, Any]:
        self._begin("get_connector_properties")
        self.script.strike("get_connector_properties", When.AFTER)
        return dict(self._properties)

    async def connect_volume(self, connection_info: Mapping[str, Any]) -> dict[str, Any]:
        volume_id = str(connection_info["serial"])
        self._begin("connect_volume", volume_id)
        match connection_info.get("driver_volume_type"):
            case "local":
                answer = {"type": "local", "path": connection_info["data"]["device_path"]}
            case "iscsi" | "rbd":
                answer = {"type": "network"}
            case other:
                raise Invalid(reason=f"driver_volume_type {other!r} is not among iscsi, local, rbd")
        if volume_id in self.sizes and (flaw := size_flaw(connection_info.get(VOLUME_SIZE), self.sizes[volume_id], shown="it")):
            raise VolumeConnectionFailed(volume_id=volume_id, reason=flaw)
        self.connected.add(volume_id)
        self.script.strike("connect_volume", When.AFTER)
        return answer

    async def disconnect_volume(self, connection_info: Mapping[str, Any]) -> None:
        volume_id = str(connection_info["serial"])
        self._begin("disconnect_volume", volume_id)
        self.connected.discard(volume_id)
        self.script.strike("disconnect_volume", When.AFTER)

    async def connections(self) -> set[str] | None:
        self._begin("connections")
        self.script.strike("connections", When.AFTER)
        return set(self.connected)

    def _begin(self, method: str, volume_id: str | None = None) -> None:
        self.calls.append((method, volume_id))
        self.script.strike(method, When.BEFORE)
