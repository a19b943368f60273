"""The one file of nova that names concrete parts: which adapters stand behind the ports, and what each process serves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from common.app.carrier import alongside
from common.app.process import ground
from common.app.reconciling import Rounds
from common.app.service import Inside, Outside, Process
from common.db.journal import Journal
from common.flow.steps import Flow
from common.host.locks import KeyedLocks
from common.rpc.session import Serving
from nova_lite.brick.host import HostConnector
from nova_lite.brick.iscsi import IscsiConnector
from nova_lite.brick.iscsi_sysfs import Sysfs
from nova_lite.brick.iscsiadm import Iscsiadm
from nova_lite.brick.properties import ensure_initiator_name
from nova_lite.clients.cinder import volumes
from nova_lite.config import NovaConfig
from nova_lite.contract import ComputeManagerAPI
from nova_lite.domain.settle import Action
from nova_lite.flows.attach_volume import AttachVolume
from nova_lite.flows.boot import Boot, RequestBoot
from nova_lite.flows.delete import Delete, RequestDelete
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.flows.extend_disk import ExtendDisk
from nova_lite.flows.parts import ApiParts, ComputeParts
from nova_lite.flows.power import Reboot, RequestPower, Start, Stop
from nova_lite.flows.request_attach import RequestAttach
from nova_lite.flows.request_detach import RequestDetach
from nova_lite.flows.settle_disk import RemoveDisk, RestoreDisk
from nova_lite.flows.settle_machine import ReapMachine, SettleMachine, SettleStopped
from nova_lite.ports.connector import Connector
from nova_lite.ports.hypervisor import Hypervisor, Watched
from nova_lite.service.api import BINARY, ComputeApi, Fleet
from nova_lite.service.audit import NovaAuditor
from nova_lite.service.compute import ComputeManager, Guests, Inventory, host_report
from nova_lite.service.events import ExternalEvents
from nova_lite.service.finding import find
from nova_lite.service.machines import chosen_hypervisor
from nova_lite.service.reconcile import HostReconciler
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from nova_lite.store.instances import Instances
from nova_lite.store.tables import BRANCH

API_FLOWS: tuple[type[Flow[Any, ApiParts]], ...] = (RequestBoot, RequestDelete, RequestAttach, RequestDetach, RequestPower)
COMPUTE_FLOWS: tuple[type[Flow[Any, ComputeParts]], ...] = (
    Boot,
    Delete,
    AttachVolume,
    DetachVolume,
    SettleMachine,
    ReapMachine,
    RestoreDisk,
    RemoveDisk,
    Stop,
    Start,
    Reboot,
    SettleStopped,
    ExtendDisk,
)


@asynccontextmanager
async def api(config: NovaConfig, outside: Outside) -> AsyncIterator[None]:
    """nova-api."""
    host = config.common.host
    name = f"nova-api.{host}"
    async with (
        ground(config.common, config.database, name=name, migrations=BRANCH, outside=outside) as base,
        base.carrying(name, home="nova-api") as carrier,
    ):
        parts = ApiParts(
            instances=Instances(base.database, base.clock),
            mappings=BlockDeviceMappings(base.database, base.clock),
            volumes=volumes(base.rpc, exchange=config.cinder_control_exchange),
            compute=ComputeManagerAPI.over(base.rpc, exchange=config.common.control_exchange),
            orders=ComputeManagerAPI.over(carrier.post.sender, exchange=config.common.control_exchange),
            post=carrier.post,
            journal=Journal(base.database, base.clock),
            decisions=carrier.decisions,
        )
        carrier.runner.knows(parts, *API_FLOWS)
        servers = ComputeApi(parts, Fleet(base.hosts, config.common.service_down_time), carrier.runner)
        serving = _serving(config, host, servers, ExternalEvents(parts))
        async with base.serve(serving, carrier=carrier, binary="nova-api", topic="nova-api", host=host):
            yield


@asynccontextmanager
async def compute(config: NovaConfig, outside: Outside) -> AsyncIterator[None]:
    """nova-compute, one for each host."""
    hypervisor = await chosen_hypervisor(config, outside.clock)
    if config.initiatorname_file.is_relative_to(config.common.state_path):
        ensure_initiator_name(config.initiatorname_file)
    connector = HostConnector(
        host=config.common.host,
        my_ip=config.common.my_ip,
        initiator_file=config.initiatorname_file,
        userspace_disks=hypervisor.kind in {"qemu", "libvirt"},
        iscsi=IscsiConnector(Iscsiadm(), Sysfs(), outside.clock) if config.iscsi_login == "host" else None,
        os_brick=config.use_os_brick,
    )
    async with compute_with(config, outside, hypervisor=hypervisor, connector=connector):
        yield


@asynccontextmanager
async def compute_with(
    config: NovaConfig, outside: Outside, *, hypervisor: Hypervisor, connector: Connector
) -> AsyncIterator[None]:
    """nova-compute on a given hypervisor and connector, which are closed at the end."""
    host = config.common.host
    name = f"{BINARY}.{host}"
    async with (
        ground(config.common, config.database, name=name, migrations=BRANCH, outside=outside) as base,
        base.carrying(name) as carrier,
    ):
        parts = ComputeParts(
            host=host,
            instances=Instances(base.database, base.clock),
            mappings=BlockDeviceMappings(base.database, base.clock),
            volumes=volumes(base.rpc, exchange=config.cinder_control_exchange),
            hypervisor=hypervisor,
            connector=connector,
            runner=carrier.runner,
            clock=base.clock,
            shutdown_timeout_s=config.shutdown_timeout,
        )
        carrier.runner.knows(parts, *COMPUTE_FLOWS)
        limit, held = config.max_disk_devices_to_attach, hypervisor.disks_max
        manager = ComputeManager(parts, KeyedLocks(), disks_max=held if limit < 0 else min(limit, held))
        probes = [Guests(parts)] if config.common.enable_data_probe else []
        reconciler = HostReconciler(parts, base.database, base.clock, report=lambda: host_report(parts))
        rounds = Rounds(reconciler, base.clock)
        endpoints = [manager, Inventory(parts, rounds), *probes]
        try:
            serving = _serving(config, host, *endpoints)
            async with (
                base.serve(serving, carrier=carrier, binary=BINARY, topic="compute", host=host),
                alongside(rounds.run()),
                alongside(_watched(hypervisor, rounds)),
            ):
                yield
        finally:
            await hypervisor.close()


async def _watched(hypervisor: Hypervisor, rounds: Rounds[Action]) -> None:
    """A machine that starts or stops is looked at now."""
    if isinstance(hypervisor, Watched):
        await hypervisor.watch(rounds.hurry)


def _serving(config: NovaConfig, host: str, *endpoints: object) -> Serving:
    return Serving(endpoints, host, exchange=config.common.control_exchange)


INSIDE = Inside(
    processes=(Process("api", "nova-api", api), Process("compute", BINARY, compute)),
    migrations=BRANCH,
    sagas=(*(kind.saga for kind in API_FLOWS), *(kind.saga for kind in COMPUTE_FLOWS)),
    find=find,
    auditor=NovaAuditor(),
)
