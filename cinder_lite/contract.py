"""What cinder offers on the bus. The only module of cinder_lite that others may import.

Names, arguments and versions of VolumeManagerAPI and SchedulerAPI are those of cinder.volume.rpcapi (3.20) and
cinder.scheduler.rpcapi (3.12). VolumeAPI carries cinder-api's verbs, which upstream are REST actions, under the method names
of cinder.volume.api.API. The errors of cinder_lite.errors belong to the contract: whoever imports it can catch them.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from cinder_lite import errors as errors  # noqa: PLC0414  # re-exported on purpose
from common.base.context import Context
from common.rpc.contract import Contract, call, cast
from common.wire.objects import ObjectNamespace

CONTROL_EXCHANGE = "openstack"
"""oslo.messaging's own default, which cinder does not change (oslo-wire 2.1)."""

CINDER = ObjectNamespace("versioned_object", "cinder")
"""The rows below cross the bus as cinder's objects, in the versions of cinder 29."""


INVENTORY_TIMEOUT_S = 30.0
RECONCILE_TIMEOUT_S = 120.0
RESET_TIMEOUT_S = 120.0
"""Longest wait for an administrator's verb: an export has to be seen gone."""


class VolumeStatus(StrEnum):
    """volumes.status, in cinder's words."""

    CREATING = "creating"
    AVAILABLE = "available"
    RESERVED = "reserved"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    EXTENDING = "extending"
    DELETING = "deleting"
    DELETED = "deleted"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"
    ERROR_EXTENDING = "error_extending"


class SnapshotStatus(StrEnum):
    """snapshots.status, in cinder's words."""

    CREATING = "creating"
    AVAILABLE = "available"
    DELETING = "deleting"
    DELETED = "deleted"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"


class AttachStatus(StrEnum):
    """volumes.attach_status and volume_attachment.attach_status, in cinder's words."""

    RESERVED = "reserved"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    DETACHED = "detached"
    ERROR_ATTACHING = "error_attaching"
    ERROR_DETACHING = "error_detaching"
    DELETED = "deleted"


@CINDER.versioned_object("1.3", list_version="1.1")
class VolumeAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A row of volume_attachment. `connector` and `connection_info` stay in the row: they hold secrets."""

    id: str
    volume_id: str
    instance_uuid: str | None = None
    attached_host: str | None = None
    mountpoint: str | None = None
    attach_time: datetime | None = None
    detach_time: datetime | None = None
    attach_mode: str | None = None
    attach_status: AttachStatus = AttachStatus.RESERVED


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A user message: why something asynchronous failed (cinder.messages)."""

    request_id: str | None = None
    event_id: str = ""
    user_message: str = ""
    created_at: datetime | None = None


@CINDER.versioned_object(
    "1.9", list_version="1.1", extensions=["messages"], inner={"volume_type": CINDER.inner("VolumeType", "1.3", attribute="name")}
)
class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A row of volumes with its live attachments. `size` in GiB; `host` is host@backend#pool, None before scheduling;
    `volume_type` is the type's name; `snapshot_id` and `source_volid` are what it was made of; `messages` are our extension.

    `provider_auth` never crosses the bus.
    """

    id: str
    size: int
    status: VolumeStatus
    display_name: str | None = None
    display_description: str | None = None
    host: str | None = None
    volume_type: str | None = None
    snapshot_id: str | None = None
    source_volid: str | None = None
    availability_zone: str | None = None
    attach_status: AttachStatus = AttachStatus.DETACHED
    provider_location: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    multiattach: bool = False
    bootable: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    launched_at: datetime | None = None
    volume_attachment: tuple[VolumeAttachment, ...] = ()
    messages: tuple[Message, ...] = ()

    @property
    def name(self) -> str:
        """The backend's name of it (volume_name_template)."""
        return f"volume-{self.id}"

    @property
    def label(self) -> str:
        """What a user calls it."""
        return self.display_name or self.id


@CINDER.versioned_object("1.6", list_version="1.0", extensions=["messages"])
class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A row of snapshots. `volume_size` is the size in GiB that the volume had when it was taken; `progress` is "0%" to "100%";
    `messages` are our extension.
    """

    id: str
    volume_id: str
    volume_size: int
    status: SnapshotStatus
    display_name: str | None = None
    display_description: str | None = None
    progress: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    messages: tuple[Message, ...] = ()

    @property
    def name(self) -> str:
        """The backend's name of it (snapshot_name_template)."""
        return f"snapshot-{self.id}"

    @property
    def volume_name(self) -> str:
        """The backend's name of the volume that it was taken of."""
        return f"volume-{self.volume_id}"

    @property
    def label(self) -> str:
        """What a user calls it."""
        return self.display_name or self.id


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A row of services, and whether its heartbeat is recent."""

    binary: str
    host: str
    topic: str
    status: str
    state: str
    availability_zone: str | None = None
    updated_at: datetime | None = None
    disabled_reason: str | None = None


class VolumeAPI(Contract, Protocol, topic="cinder-api", version="1.2", exchange=CONTROL_EXCHANGE):
    """cinder-api: volumes for clients, and the compare-and-swap on their status."""

    @call(since="1.0")
    async def create(
        self, ctx: Context, *, size: int | None = None, name: str | None = None, description: str | None = None,
        volume_type: str | None = None, availability_zone: str | None = None, snapshot_id: str | None = None,
        source_volid: str | None = None,
    ) -> Volume:  # fmt: skip
        """`size` may be left out where the volume is made of a snapshot or of another volume, each by id or by name."""
        ...

    @call(since="1.0")
    async def get(self, ctx: Context, *, volume_id: str) -> Volume:
        """By id or by name. Raises VolumeNotFound, AmbiguousVolume."""
        ...

    @call(since="1.0")
    async def get_all(self, ctx: Context) -> list[Volume]: ...

    @call(since="1.0")
    async def delete(self, ctx: Context, *, volume_id: str) -> None: ...

    @call(since="1.0")
    async def services(self, ctx: Context) -> list[ServiceInfo]: ...

    @call(since="1.0")
    async def reserve_volume(self, ctx: Context, *, volume_id: str, attachment_id: str, instance_uuid: str) -> VolumeAttachment:
        """available -> attaching; the attachment row first. The same attachment_id again gives the same row."""
        ...

    @call(since="1.0")
    async def unreserve_volume(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None:
        """attaching -> available for this attachment only; nothing happens when it no longer holds the volume."""
        ...

    @call(since="1.0")
    async def begin_detaching(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None: ...

    @call(since="1.0")
    async def roll_detaching(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None: ...

    @call(since="1.0")
    async def initialize_connection(
        self, ctx: Context, *, volume_id: str, connector: Mapping[str, Any], attachment_id: str
    ) -> dict[str, Any]: ...

    @call(since="1.0")
    async def terminate_connection(
        self, ctx: Context, *, volume_id: str, connector: Mapping[str, Any] | None, attachment_id: str, force: bool = False
    ) -> None: ...

    @call(since="1.0")
    async def attach(
        self, ctx: Context, *, volume_id: str, attachment_id: str, instance_uuid: str, host_name: str | None, mountpoint: str,
        mode: str = "rw",
    ) -> VolumeAttachment: ...  # fmt: skip

    @call(since="1.0")
    async def detach(self, ctx: Context, *, volume_id: str, attachment_id: str) -> None:
        """Frees the volume once its export was seen gone. Detached already: nothing happens."""
        ...

    @call(since="1.1", timeout_s=RESET_TIMEOUT_S)
    async def force_detach(self, ctx: Context, *, volume_id: str, attachment_id: str | None = None) -> Volume:
        """An administrator's: every initiator is put out and the export seen gone, then the attachment is over. By id or by name.

        The compute host takes the disk from its machine afterwards. `attachment_id` may be left out when there is only one.
        """
        ...

    @call(since="1.1", timeout_s=RESET_TIMEOUT_S)
    async def reset_status(self, ctx: Context, *, volume_id: str, status: str) -> Volume:
        """An administrator's: to `available` (force-detached before), `error` or `in-use`, where the rows and the backend bear it out."""
        ...

    @call(since="1.2")
    async def extend(self, ctx: Context, *, volume_id: str, new_size: int) -> None:
        """Accepted: an available or attached volume grows behind the answer. By id or by name; `new_size` in GiB."""
        ...

    @call(since="1.2")
    async def create_snapshot(
        self, ctx: Context, *, volume_id: str, name: str | None = None, description: str | None = None
    ) -> Snapshot:
        """Accepted: of an available or attached volume (since 3.66 the latter needs no force). By id or by name."""
        ...

    @call(since="1.2")
    async def delete_snapshot(self, ctx: Context, *, snapshot_id: str) -> None:
        """Accepted. By id or by name. Deleting already: nothing happens."""
        ...

    @call(since="1.2")
    async def get_snapshot(self, ctx: Context, *, snapshot_id: str) -> Snapshot:
        """By id or by name. Raises SnapshotNotFound, AmbiguousSnapshot."""
        ...

    @call(since="1.2")
    async def get_all_snapshots(self, ctx: Context) -> list[Snapshot]: ...


class SchedulerAPI(Contract, Protocol, topic="cinder-scheduler", version="3.12", exchange=CONTROL_EXCHANGE):
    """cinder-scheduler: picks the backend of a new volume."""

    @cast(since="3.0")
    async def create_volume(
        self, ctx: Context, *, volume: Volume, snapshot_id: str | None = None, image_id: str | None = None,
        request_spec: Mapping[str, Any] | None = None, filter_properties: Mapping[str, Any] | None = None,
        backup_id: str | None = None,
    ) -> None: ...  # fmt: skip

    @cast(since="3.0")
    async def update_service_capabilities(
        self, ctx: Context, *, service_name: str, host: str, capabilities: Mapping[str, Any], cluster_name: str | None = None,
        timestamp: str | None = None,
    ) -> None: ...  # fmt: skip


class VolumeManagerAPI(Contract, Protocol, topic="cinder-volume", version="3.20", exchange=CONTROL_EXCHANGE):
    """cinder-volume: one backend's driver, target and exports."""

    @cast(since="3.0")
    async def create_volume(
        self, ctx: Context, *, volume: Volume, request_spec: Mapping[str, Any] | None = None,
        filter_properties: Mapping[str, Any] | None = None, allow_reschedule: bool = True,
    ) -> None: ...  # fmt: skip

    @cast(since="3.0")
    async def delete_volume(self, ctx: Context, *, volume: Volume, unmanage_only: bool = False, cascade: bool = False) -> None: ...

    @call(since="3.0")
    async def initialize_connection(
        self, ctx: Context, *, volume: Volume, connector: Mapping[str, Any], attachment_id: str | None = None
    ) -> dict[str, Any]:
        """The connection_info of attach-flow 6.1. `attachment_id`, our extension, is the fencing token."""
        ...

    @call(since="3.0")
    async def terminate_connection(
        self, ctx: Context, *, volume_id: str, connector: Mapping[str, Any] | None, force: bool = False,
        volume: Volume | None = None, attachment_id: str | None = None,
    ) -> None: ...  # fmt: skip

    @call(since="3.3")
    async def attach_volume(
        self, ctx: Context, *, volume_id: str, instance_uuid: str | None, host_name: str | None, mountpoint: str, mode: str,
        volume: Volume | None = None, attachment_id: str | None = None,
    ) -> VolumeAttachment: ...  # fmt: skip

    @call(since="3.4")
    async def detach_volume(
        self, ctx: Context, *, volume_id: str, attachment_id: str | None = None, volume: Volume | None = None
    ) -> None: ...

    @cast(since="3.0")
    async def extend_volume(
        self, ctx: Context, *, volume: Volume, new_size: int, reservations: list[str] | None = None
    ) -> None: ...

    @cast(since="3.0")
    async def create_snapshot(self, ctx: Context, *, snapshot: Snapshot) -> None: ...

    @cast(since="3.0")
    async def delete_snapshot(self, ctx: Context, *, snapshot: Snapshot, unmanage_only: bool = False) -> None: ...

    @cast(since="3.0")
    async def publish_service_capabilities(self, ctx: Context) -> None:
        """Report capabilities to the schedulers now."""
        ...


class ServerExternalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a server from outside (os-server-external-events): "volume-extended", with the volume's id as `tag`."""

    name: str
    server_uuid: str
    tag: str | None = None
    status: str = "completed"


class ServerEventsAPI(Contract, Protocol, topic="nova-api", version="1.0", namespace="external_events", exchange="nova"):
    """What cinder tells whoever runs the servers; nova-api serves it."""

    @cast()
    async def external_instance_event(self, ctx: Context, *, events: list[ServerExternalEvent]) -> None: ...


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """An export as the target has it; `volume_id` is that of its name, `sessions` has a peer once for each of its sessions."""

    volume_id: str | None = None
    path: str | None = None
    let_in: list[str] = []
    sessions: list[str] = []


class BackendReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is really there on a backend, whatever the rows say. No secrets.

    backend          host@backend
    kind             the target's: "tgt", "local" ...
    exports          by their names, IQNs for iSCSI; several backends with one target tell of the same ones
    volumes          names of all volumes that are kept, half-made ones too
    snapshots        name -> name of the volume, of all snapshots that are kept, half-made ones too
    provisioned_gb   sum of the sizes of the kept volumes
    capacity_gb      most that may be promised
    """

    backend: str
    kind: str
    exports: dict[str, ExportReport]
    volumes: list[str]
    provisioned_gb: float
    capacity_gb: float
    snapshots: dict[str, str] = {}


class BackendInventory(Contract, Protocol, topic="cinder-volume", version="1.0", namespace="inventory", exchange=CONTROL_EXCHANGE):
    """What a backend has, for comparison with the rows, and what makes the two agree."""

    @call(timeout_s=INVENTORY_TIMEOUT_S)
    async def inventory(self, ctx: Context) -> BackendReport: ...

    @call(timeout_s=RECONCILE_TIMEOUT_S)
    async def reconcile(self, ctx: Context) -> list[str]:
        """Mends now what the backend's service would mend in its next round; what was done, a line each."""
        ...


class BackingStoreProbe(Contract, Protocol, topic="cinder-volume", version="1.0", namespace="probe", exchange=CONTROL_EXCHANGE):
    """Looks at a volume's bytes where they are stored. Served only with enable_data_probe = true."""

    @call()
    async def about(self, ctx: Context) -> dict[str, str]:
        """{"backend": host@backend, "target": "tgt" or "local"}"""
        ...

    @call()
    async def read_backing(self, ctx: Context, *, volume: Volume, offset: int, length: int) -> dict[str, str]:
        """{"path": where the volume is kept, "hex": its bytes}; at most 64 KiB at a time."""
        ...
