"""What the suite needs around a connector: volumes to connect, and ways to make connecting fail."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from common.base.ids import new_uuid
from nova_lite.brick.fake import FakeConnector
from nova_lite.brick.host import HostConnector
from nova_lite.errors import VolumeConnectionFailed
from nova_lite.ports.connector import VOLUME_SIZE, Connector
from tests.simulation.adapters import SimulatedConnector
from tests.simulation.bench import Workbench
from tests.simulation.reality import Host
from tests.support.open_iscsi import PORTAL, OpenIscsi

INITIATOR = "iqn.2010-10.org.openstack:0123456789ab"
SECRET = "Sesame-never-shown-16"
VOLUME_BYTES = 1024 * 1024
ConnectionInfo = dict[str, Any]


class Bench(ABC):
    """One adapter, with what is around it."""

    connector: Connector
    without_initiator: Connector

    @abstractmethod
    def restarted(self) -> Connector:
        """Another object on the same host, as after a restart of nova-compute."""

    @abstractmethod
    def volume(self) -> ConnectionInfo:
        """connection_info of a new volume of VOLUME_BYTES."""

    @abstractmethod
    def failing(self) -> ConnectionInfo:
        """connection_info of a new volume whose next connection fails."""

    @abstractmethod
    def mend(self, info: ConnectionInfo) -> None:
        """What made it fail is over."""

    def sized(self, info: ConnectionInfo, size_gib: int) -> ConnectionInfo:
        """The same volume, which is to have `size_gib` by its row; its storage shows VOLUME_BYTES."""
        return info | {VOLUME_SIZE: size_gib}

    def remains(self) -> list[str]:
        """What is on the host of connections."""
        return []


def iscsi(kind: str = "iscsi") -> ConnectionInfo:
    volume_id = new_uuid()
    data = {"target_portal": PORTAL, "target_iqn": f"iqn.2010-10.org.openstack:volume-{volume_id}", "target_lun": 1}
    data |= {"auth_method": "CHAP", "auth_username": "u", "auth_password": SECRET}
    return {"driver_volume_type": kind, "serial": volume_id, "data": data}


class FakeBench(Bench):
    def __init__(self, folder: Path) -> None:
        self._fake = self.connector = FakeConnector(host="cmp1", ip="10.0.0.21", initiator=INITIATOR)
        self.without_initiator = FakeConnector(host="cmp1", ip="10.0.0.21", initiator=None)

    def restarted(self) -> Connector:
        other = FakeConnector(host="cmp1", ip="10.0.0.21", initiator=INITIATOR)
        other.connected = self._fake.connected
        return other

    def volume(self) -> ConnectionInfo:
        return iscsi()

    def failing(self) -> ConnectionInfo:
        info = iscsi()
        self._fake.script.fail_next("connect_volume", VolumeConnectionFailed(volume_id=info["serial"], reason="scripted"))
        return info

    def mend(self, info: ConnectionInfo) -> None:
        self._fake.script.clear()

    def sized(self, info: ConnectionInfo, size_gib: int) -> ConnectionInfo:
        self._fake.sizes[info["serial"]] = VOLUME_BYTES
        return super().sized(info, size_gib)

    def remains(self) -> list[str]:
        return sorted(self._fake.connected)


class SimulationBench(Bench):
    """The one of tests/simulation."""

    def __init__(self, folder: Path) -> None:
        self._workbench = Workbench()
        self._host = Host("cmp1", INITIATOR)
        self._simulated = self.connector = self.restarted()
        self.without_initiator = SimulatedConnector(Host("cmp1", ""), self._workbench.process, ip="10.0.0.21")

    def restarted(self) -> SimulatedConnector:
        return SimulatedConnector(self._host, self._workbench.process, ip="10.0.0.21")

    def volume(self) -> ConnectionInfo:
        return iscsi()

    def failing(self) -> ConnectionInfo:
        self._workbench.fail_next("connector.connect_volume")
        return iscsi()

    def mend(self, info: ConnectionInfo) -> None:
        """It strikes once."""

    def sized(self, info: ConnectionInfo, size_gib: int) -> ConnectionInfo:
        self._simulated.sizes[info["serial"]] = VOLUME_BYTES
        return super().sized(info, size_gib)

    def remains(self) -> list[str]:
        return sorted(self._host.connected)


class HostBench(Bench):
    """Files of the host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "initiatorname.iscsi").write_text(f"InitiatorName={INITIATOR}\n")
        self.connector = self.restarted()
        self.without_initiator = host(folder / "no-such-file")

    def restarted(self) -> Connector:
        return host(self.folder / "initiatorname.iscsi")

    def volume(self) -> ConnectionInfo:
        info = self.failing()
        self.mend(info)
        return info

    def failing(self) -> ConnectionInfo:
        volume_id = new_uuid()
        return {"driver_volume_type": "local", "serial": volume_id, "data": {"device_path": str(self.folder / volume_id)}}

    def mend(self, info: ConnectionInfo) -> None:
        with Path(info["data"]["device_path"]).open("wb") as file:
            file.truncate(VOLUME_BYTES)


class OpenIscsiBench(Bench):
    """The kernel's initiator and iscsiadm, or what stands in for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel = OpenIscsi(folder)
        (folder / "initiatorname.iscsi").write_text(f"InitiatorName={INITIATOR}\n")
        self.connector = self.restarted()
        self.without_initiator = host(folder / "no-such-file")

    def restarted(self) -> HostConnector:
        return host(self.folder / "initiatorname.iscsi", kernel=self.kernel)

    def volume(self) -> ConnectionInfo:
        info = iscsi()
        self.mend(info)
        return info

    def failing(self) -> ConnectionInfo:
        info = iscsi()
        self.kernel.serve(info["data"]["target_iqn"], password=f"{SECRET}-not", size=VOLUME_BYTES)
        return info

    def mend(self, info: ConnectionInfo) -> None:
        self.kernel.serve(info["data"]["target_iqn"], password=SECRET, size=VOLUME_BYTES)

    def remains(self) -> list[str]:
        return self.kernel.remains()


def host(initiator_file: Path, *, userspace_disks: bool = True, kernel: OpenIscsi | None = None) -> HostConnector:
    login = None if kernel is None else kernel.connector()
    return HostConnector(
        host="cmp1", my_ip="10.0.0.21", initiator_file=initiator_file, userspace_disks=userspace_disks, iscsi=login
    )


BENCHES: dict[str, type[Bench]] = {
    "fake": FakeBench,
    "simulation": SimulationBench,
    "host": HostBench,
    "open-iscsi": OpenIscsiBench,
}
