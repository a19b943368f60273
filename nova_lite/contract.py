"""What nova offers on the bus.

Names, arguments and versions of ComputeManagerAPI are those of nova.compute.rpcapi (6.5). ComputeAPI carries nova-api's verbs,
which upstream are REST requests, under the method names of nova.compute.api.API.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Protocol

import msgspec

from common.base.context import Context
from common.rpc.contract import Contract, call, cast
from common.wire.objects import ObjectNamespace
from nova_lite import errors as errors  # noqa: PLC0414  # re-exported on purpose

CONTROL_EXCHANGE = "nova"
NOVA = ObjectNamespace("nova_object", "nova")
"""The rows below cross the bus as nova's objects, in the versions of nova 34."""


INVENTORY_TIMEOUT_S = 30.0
"""Longest wait for a host's report: one machine of it may take MACHINE_TIMEOUT_S."""
MACHINE_TIMEOUT_S = 10.0
"""A machine that has not said by then what disks it has is told of as silent."""
RECONCILE_TIMEOUT_S = 120.0


class VmState(StrEnum):
    """instances.vm_state, in nova's words."""

    BUILDING = "building"
    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"
    ERROR = "error"


class TaskState(StrEnum):
    """instances.task_state, in nova's words; a row without a task has NULL."""

    SCHEDULING = "scheduling"
    SPAWNING = "spawning"
    POWERING_OFF = "powering-off"
    POWERING_ON = "powering-on"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    DELETING = "deleting"


class RebootType(StrEnum):
    """How a reboot is made: SOFT asks the guest to shut down first, HARD asks nobody and mends a server in error too."""

    SOFT = "SOFT"
    HARD = "HARD"


class PowerState(IntEnum):
    """instances.power_state, nova's numbers."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6


@NOVA.versioned_object("1.2", extensions=["request_id"])
class InstanceFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why something asynchronous failed (nova.instance_faults). `request_id` is our extension."""

    code: int
    message: str = ""
    host: str | None = None
    request_id: str | None = None
    created_at: datetime | None = None


@NOVA.versioned_object(
    "2.8",
    list_version="2.6",
    inner={"flavor": NOVA.inner("Flavor", "1.2", attribute="name", copied=["memory_mb", "vcpus", "root_gb"])},
)
class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A row of instances with its latest fault. `host` is None before a host was chosen; `flavor` is the flavor's name."""

    uuid: str
    display_name: str
    vm_state: VmState
    task_state: TaskState | None = None
    power_state: PowerState = PowerState.NOSTATE
    host: str | None = None
    node: str | None = None
    flavor: str = ""
    memory_mb: int = 0
    vcpus: int = 0
    root_gb: int = 0
    root_device_name: str = "/dev/vda"
    image_ref: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    availability_zone: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    launched_at: datetime | None = None
    terminated_at: datetime | None = None
    fault: InstanceFault | None = None

    @property
    def status(self) -> str:
        """The word of nova's API for the state (nova.api.openstack.common, _STATE_MAP)."""
        match self.vm_state, self.task_state:
            case VmState.BUILDING, _:
                return "BUILD"
            case VmState.STOPPED, _:
                return "SHUTOFF"
            case VmState.ACTIVE, TaskState.REBOOTING:
                return "REBOOT"
            case VmState.ACTIVE, TaskState.REBOOTING_HARD:
                return "HARD_REBOOT"
            case vm_state, _:
                return vm_state.upper()


@NOVA.versioned_object("1.21", list_version="1.18")
class BlockDeviceMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A row of block_device_mapping. `connection_info` stays in the row: it holds the CHAP secret."""

    uuid: str
    instance_uuid: str
    source_type: str = "volume"
    destination_type: str = "volume"
    device_type: str | None = None
    disk_bus: str | None = None
    boot_index: int | None = None
    device_name: str | None = None
    delete_on_termination: bool = False
    volume_id: str | None = None
    volume_size: int | None = None
    attachment_id: str | None = None
    created_at: datetime | None = None


@NOVA.versioned_object("1.5")
class InstanceExternalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a server from outside (nova.objects.external_event): "volume-extended", with the volume's id as `tag`."""

    instance_uuid: str
    name: str
    status: str = "completed"
    tag: str | None = None
    data: dict[str, str] = {}


class ComputeAPI(Contract, Protocol, topic="nova-api", version="1.1", exchange=CONTROL_EXCHANGE):
    """nova-api: servers and their volume attachments for clients. `server` is an id or a name."""

    @call(since="1.0")
    async def create(
        self, ctx: Context, *, name: str, flavor: str, image: str | None = None, host: str | None = None,
        availability_zone: str | None = None,
    ) -> Instance: ...  # fmt: skip

    @call(since="1.0")
    async def get(self, ctx: Context, *, server: str) -> Instance: ...

    @call(since="1.0")
    async def get_all(self, ctx: Context) -> list[Instance]: ...

    @call(since="1.0")
    async def delete(self, ctx: Context, *, server: str) -> None: ...

    @call(since="1.0")
    async def attach_volume(self, ctx: Context, *, server: str, volume: str, device: str | None = None) -> BlockDeviceMapping:
        """Accepted: the attachment goes on behind the answer. `volume` is an id or a name."""
        ...

    @call(since="1.0")
    async def detach_volume(self, ctx: Context, *, server: str, volume: str) -> None:
        """Accepted: the detachment goes on behind the answer."""
        ...

    @call(since="1.1")
    async def stop(self, ctx: Context, *, server: str) -> None:
        """Accepted: os-stop. The volumes stay attached; the server is SHUTOFF once its machine is off."""
        ...

    @call(since="1.1")
    async def start(self, ctx: Context, *, server: str) -> None:
        """Accepted: os-start. The machine gets its volumes again."""
        ...

    @call(since="1.1")
    async def reboot(self, ctx: Context, *, server: str, reboot_type: RebootType = RebootType.SOFT) -> None:
        """Accepted: stopped and started again."""
        ...

    @call(since="1.1")
    async def set_delete_on_termination(self, ctx: Context, *, server: str, volume: str, delete_on_termination: bool) -> None:
        """Whether the volume is deleted with the server: PUT os-volume_attachments since microversion 2.85."""
        ...

    @call(since="1.0")
    async def volume_attachments(self, ctx: Context, *, server: str) -> list[BlockDeviceMapping]: ...


class ComputeManagerAPI(Contract, Protocol, topic="compute", version="6.5", exchange=CONTROL_EXCHANGE):
    """nova-compute: the guests of one host."""

    @cast(since="6.0")
    async def build_and_run_instance(
        self, ctx: Context, *, instance: Instance, image: Mapping[str, Any] | None = None,
        request_spec: Mapping[str, Any] | None = None, filter_properties: Mapping[str, Any] | None = None,
    ) -> None: ...  # fmt: skip

    @cast(since="6.0")
    async def terminate_instance(
        self, ctx: Context, *, instance: Instance, bdms: list[BlockDeviceMapping] | None = None
    ) -> None: ...

    @cast(since="6.0")
    async def stop_instance(self, ctx: Context, *, instance: Instance, clean_shutdown: bool = True) -> None:
        """clean_shutdown   whether the guest is asked to shut down first"""
        ...

    @cast(since="6.0")
    async def start_instance(self, ctx: Context, *, instance: Instance) -> None: ...

    @cast(since="6.0")
    async def reboot_instance(
        self,
        ctx: Context,
        *,
        instance: Instance,
        block_device_info: Mapping[str, Any] | None = None,
        reboot_type: RebootType = RebootType.SOFT,
    ) -> None:
        """block_device_info   not read: what the server has, its rows say"""
        ...  # fmt: skip

    @call(since="6.0")
    async def reserve_block_device_name(
        self,
        ctx: Context,
        *,
        instance: Instance,
        device: str | None,
        volume_id: str,
        disk_bus: str | None = None,
        device_type: str | None = None,
        tag: str | None = None,
        multiattach: bool = False,
        attachment_id: str | None = None,
    ) -> BlockDeviceMapping:
        """The device name, chosen and entered under the instance's lock. `attachment_id` is our extension; the same again
        gives the same row.
        """
        ...  # fmt: skip

    @cast(since="6.0")
    async def attach_volume(self, ctx: Context, *, instance: Instance, bdm: BlockDeviceMapping) -> None: ...

    @cast(since="6.0")
    async def detach_volume(
        self, ctx: Context, *, instance: Instance, volume_id: str, attachment_id: str | None = None
    ) -> None: ...

    @cast(since="6.0")
    async def external_instance_event(
        self, ctx: Context, *, instances: list[Instance], events: list[InstanceExternalEvent]
    ) -> None:
        """Of these, "volume-extended" is acted upon: the machine shows its guest the new size."""
        ...


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is really there on a compute host, whatever the rows say. No secrets.

    machines      of each machine that is alive: volume id -> mountpoint of the disks that it has
    silent        machines that are alive and do not say what they have -> why
    leftovers     instance uuid -> what is left of a machine, or in it, that nothing uses
    connections   volumes that the host itself is connected to; None where connecting makes nothing on the host
    """

    host: str
    kind: str
    machines: dict[str, dict[str, str]]
    silent: dict[str, str] = {}
    leftovers: dict[str, list[str]] = {}
    connections: list[str] | None = None


class HostInventory(Contract, Protocol, topic="compute", version="1.0", namespace="inventory", exchange=CONTROL_EXCHANGE):
    """What a compute host has, for comparison with the rows, and what makes the two agree."""

    @call(timeout_s=INVENTORY_TIMEOUT_S)
    async def inventory(self, ctx: Context) -> HostReport: ...

    @call(timeout_s=RECONCILE_TIMEOUT_S)
    async def reconcile(self, ctx: Context) -> list[str]:
        """Mends now what the host would mend in its next round; what was done, a line each."""
        ...


class GuestProbe(Contract, Protocol, topic="compute", version="1.0", namespace="probe", exchange=CONTROL_EXCHANGE):
    """Lets a machine write to its own disk, with no guest system needed. Served only with enable_data_probe = true."""

    @call()
    async def about(self, ctx: Context) -> dict[str, str]:
        """{"host": the compute host, "machine": "qemu" or "simulated"}"""
        ...

    @call()
    async def write_pattern(
        self, ctx: Context, *, instance: Instance, volume_id: str, pattern: int, offset: int, length: int
    ) -> None:
        """The machine writes `length` bytes of value `pattern` (0..255) at `offset`, both multiples of 512."""
        ...

    @call()
    async def verify_pattern(
        self, ctx: Context, *, instance: Instance, volume_id: str, pattern: int, offset: int, length: int
    ) -> bool:
        """True when the machine reads back exactly these bytes."""
        ...
