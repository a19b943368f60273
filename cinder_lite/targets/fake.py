"""A target in memory, with sessions that a test can open, and that fails when a test tells it to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure
from cinder_lite.ports.target import Chap, Export, ExportState
from cinder_lite.targets.iscsi_names import Portal, ProviderLocation, initiator_of, iscsi_connection_info, target_iqn
from common.testing.script import Script, When

_GIB = 1024**3


@dataclass(slots=True)
class FakeExport:
    """What the fake has under one name; `sessions` are the initiators that are logged in, `size` the bytes that they are told."""

    path: str
    chap: Chap | None
    acl: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    size: int = field(default=0, compare=False)


@dataclass(slots=True)
class FakeTarget:
    """Implements `cinder_lite.ports.target.Target`.

    needs_chap   False: nobody is asked for credentials
    served       what it has, by IQN; a test may break it
    script       what goes wrong next
    acts         what was asked, as "create_export volume-1"
    """

    needs_chap: bool = True
    kind: str = "fake"
    target_prefix: str = "iqn.2010-10.org.openstack:"
    portal: Portal = field(default_factory=lambda: Portal("192.0.2.1"))
    served: dict[str, FakeExport] = field(default_factory=dict)
    script: Script = field(default_factory=Script)
    acts: list[str] = field(default_factory=list)

    async def check_for_setup_error(self) -> None:
        self._begin("check_for_setup_error")
        self.script.strike("check_for_setup_error", When.AFTER)

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        initiator_of(connector)

    def export_name(self, volume: Volume) -> str:
        return target_iqn(self.target_prefix, volume.name)

    async def exports(self) -> set[str]:
        self._begin("exports")
        self.script.strike("exports", When.AFTER)
        return set(self.served)

    async def connections(self) -> dict[str, ExportState]:
        self._begin("connections")
        self.script.strike("connections", When.AFTER)
        return {
            iqn: ExportState(there.path, frozenset(there.acl), tuple(sorted(there.sessions))) for iqn, there in self.served.items()
        }

    async def create_export(self, export: Export) -> str:
        self._begin("create_export", export.volume)
        self._check_chap(export)
        iqn = self.export_name(export.volume)
        there = self.served.get(iqn)
        if there is None or there.path != export.path:
            self.served[iqn] = FakeExport(export.path, export.chap, size=export.volume.size * _GIB)
        else:
            there.chap = export.chap
        self.script.strike("create_export", When.AFTER)
        return str(self._location(iqn))

    async def extend_target(self, export: Export, new_size: int) -> None:
        self._begin("extend_target", export.volume)
        there = self.served.get(self.export_name(export.volume))
        if there is not None:
            there.size = new_size
        self.script.strike("extend_target", When.AFTER)

    async def remove_export(self, export: Export) -> None:
        self._begin("remove_export", export.volume)
        self.served.pop(self.export_name(export.volume), None)
        self.script.strike("remove_export", When.AFTER)

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        self._begin("initialize_connection", export.volume)
        self._check_chap(export)
        initiator, iqn = initiator_of(connector), self.export_name(export.volume)
        there = self.served.get(iqn)
        if there is None or (there.path, there.chap) != (export.path, export.chap):
            raise ExportFailure(volume_id=export.volume.id, reason=f"{iqn} is not exported as the volume is")
        there.acl = {initiator} | (there.acl if export.volume.multiattach else set())
        there.sessions &= there.acl
        self.script.strike("initialize_connection", When.AFTER)
        is_multipath = bool(connector.get("multipath"))
        chap = export.chap if self.needs_chap else None
        return iscsi_connection_info(self._location(iqn), volume_id=export.volume.id, chap=chap, is_multipath=is_multipath)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        self._begin("terminate_connection", export.volume)
        there = self.served.get(self.export_name(export.volume))
        initiator = None if connector is None else initiator_of(connector)
        if there is not None:
            there.acl = set() if initiator is None else there.acl - {initiator}
            there.sessions &= there.acl
        self.script.strike("terminate_connection", When.AFTER)

    def login(self, iqn: str, initiator: str, chap: Chap | None) -> bool:
        """What an initiator meets: True, and it has a session, when it is let in."""
        there = self.served.get(iqn)
        if there is None or initiator not in there.acl or (self.needs_chap and chap != there.chap):
            return False
        there.sessions.add(initiator)
        return True

    def _check_chap(self, export: Export) -> None:
        if self.needs_chap and export.chap is None:
            raise ExportFailure(volume_id=export.volume.id, reason="this target needs CHAP credentials and was given none")

    def _location(self, iqn: str) -> ProviderLocation:
        return ProviderLocation((self.portal,), iqn=iqn, lun=1, tid=1)

    def _begin(self, act: str, volume: Volume | None = None) -> None:
        self.acts.append(f"{act} {volume.name}" if volume else act)
        self.script.strike(act, When.BEFORE)
