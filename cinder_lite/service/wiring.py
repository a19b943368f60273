"""The one file of cinder that puts the parts together: what each process serves. `adapters` has those of a backend."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from cinder_lite.config import Backend, CinderConfig
from cinder_lite.contract import BackendInventory, SchedulerAPI, ServerEventsAPI, VolumeManagerAPI
from cinder_lite.flows.create_volume import CreateVolume
from cinder_lite.flows.delete_volume import DeleteVolume
from cinder_lite.flows.extend_volume import ExtendVolume
from cinder_lite.flows.initialize_connection import InitializeConnection
from cinder_lite.flows.parts import BackendParts
from cinder_lite.flows.remove_stale import RemoveStaleExport, RemoveStaleSnapshot, RemoveStaleVolume
from cinder_lite.flows.restore_export import RestoreExport
from cinder_lite.flows.snapshot import CreateSnapshot, DeleteSnapshot
from cinder_lite.flows.terminate_connection import Detach, TerminateConnection
from cinder_lite.service.adapters import Adapters, adapters_of, daemon_of
from cinder_lite.service.api import ApiParts, VolumeApi
from cinder_lite.service.audit import CinderAuditor
from cinder_lite.service.finding import find
from cinder_lite.service.reconcile import BackendReconciler, SchedulerReconciler
from cinder_lite.service.scheduler import SchedulerManager
from cinder_lite.service.volume import BackingStore, Inventory, VolumeManager
from cinder_lite.store.snapshots import Snapshots
from cinder_lite.store.tables import BRANCH
from cinder_lite.store.volume_attachment import VolumeAttachments
from cinder_lite.store.volumes import Volumes
from common.app.carrier import alongside
from common.app.process import Ground, ground
from common.app.reconciling import Rounds
from common.app.service import Inside, Outside, Process
from common.base.clock import Clock
from common.base.context import Context
from common.base.limits import RECONCILE_INTERVAL_S
from common.db.journal import Journal
from common.flow.steps import Flow
from common.rpc.contract import Sender
from common.rpc.session import Serving

CAPABILITIES_INTERVAL_S = 60.0
"""backend_stats_polling_interval of cinder."""
BACKEND_FLOWS: tuple[type[Flow[Any, BackendParts]], ...] = (
    CreateVolume,
    DeleteVolume,
    ExtendVolume,
    CreateSnapshot,
    DeleteSnapshot,
    InitializeConnection,
    TerminateConnection,
    Detach,
    RestoreExport,
    RemoveStaleExport,
    RemoveStaleVolume,
    RemoveStaleSnapshot,
)


@asynccontextmanager
async def api(config: CinderConfig, outside: Outside) -> AsyncIterator[None]:
    """cinder-api."""
    host = config.common.host
    name = f"cinder-api.{host}"
    async with (
        ground(config.common, config.database, name=name, migrations=BRANCH, outside=outside) as base,
        base.carrying(name, home="cinder-api") as carrier,
    ):
        parts = ApiParts(
            volumes=Volumes(base.database, base.clock),
            attachments=VolumeAttachments(base.database, base.clock),
            snapshots=Snapshots(base.database, base.clock),
            hosts=base.hosts,
            scheduler=SchedulerAPI.over(carrier.post.sender, exchange=config.common.control_exchange),
            manager=_manager_client(config, base.rpc),
            orders=_manager_client(config, carrier.post.sender),
            post=carrier.post,
            journal=Journal(base.database, base.clock),
            decisions=carrier.decisions,
            inventory=BackendInventory.over(base.rpc, exchange=config.common.control_exchange),
            clock=base.clock,
            service_down_time_s=config.common.service_down_time,
        )
        serving = _serving(config, host, VolumeApi(parts))
        async with base.serve(serving, carrier=carrier, binary="cinder-api", topic="cinder-api", host=host):
            yield


@asynccontextmanager
async def scheduler(config: CinderConfig, outside: Outside) -> AsyncIterator[None]:
    """cinder-scheduler. It asks every backend for a report as soon as it listens."""
    host = config.common.host
    name = f"cinder-scheduler.{host}"
    async with (
        ground(config.common, config.database, name=name, migrations=BRANCH, outside=outside) as base,
        base.carrying(name, home="cinder-scheduler") as carrier,
    ):
        manager = SchedulerManager(
            Volumes(base.database, base.clock),
            base.hosts,
            _manager_client(config, base.rpc),
            orders=_manager_client(config, carrier.post.sender),
            post=carrier.post,
            service_down_time_s=config.common.service_down_time,
            clock=base.clock,
        )
        serving = _serving(config, host, manager)
        async with base.serve(serving, carrier=carrier, binary="cinder-scheduler", topic="cinder-scheduler", host=host):
            await manager.ask_for_reports(Context(is_admin=True))
            # Not at once: before the backends have reported, no volume has a place.
            reconciler = SchedulerReconciler(Volumes(base.database, base.clock), manager, base.database)
            async with alongside(Rounds(reconciler, base.clock, first_after_s=RECONCILE_INTERVAL_S).run()):
                yield


@asynccontextmanager
async def volume(config: CinderConfig, outside: Outside) -> AsyncIterator[None]:
    """cinder-volume: every enabled backend of this host, each with a row of services and topics of its own."""
    async with volume_with(
        config,
        outside,
        {backend.name: adapters_of(backend, outside.clock, my_ip=config.common.my_ip) for backend in config.backends},
    ):
        yield


@asynccontextmanager
async def volume_with(config: CinderConfig, outside: Outside, adapters: Mapping[str, Adapters]) -> AsyncIterator[None]:
    """cinder-volume on given drivers and targets, by the backend's name."""
    name = f"cinder-volume.{config.common.host}"
    async with (
        ground(config.common, config.database, name=name, migrations=BRANCH, outside=outside) as base,
        AsyncExitStack() as stack,
    ):
        for backend in config.backends:
            await stack.enter_async_context(_backend(config, backend, base, adapters[backend.name]))
        yield


@asynccontextmanager
async def _backend(config: CinderConfig, backend: Backend, base: Ground, adapters: Adapters) -> AsyncIterator[None]:
    driver, target = adapters
    host = f"{config.common.host}@{backend.name}"
    async with AsyncExitStack() as stack:
        daemon = None
        if backend.tgtd_managed and backend.target_helper == "tgtadm":
            daemon = await stack.enter_async_context(daemon_of(backend, base.clock))
        carrier = await stack.enter_async_context(base.carrying(f"cinder-volume.{host}"))
        parts = BackendParts(
            host=host,
            volumes=Volumes(base.database, base.clock),
            attachments=VolumeAttachments(base.database, base.clock),
            snapshots=Snapshots(base.database, base.clock),
            driver=driver,
            target=target,
            servers=ServerEventsAPI.over(carrier.post.sender, exchange=config.nova_control_exchange),
            post=carrier.post,
        )
        schedulers = SchedulerAPI.over(base.rpc, exchange=config.common.control_exchange)
        carrier.runner.knows(parts, *BACKEND_FLOWS)
        manager = VolumeManager(parts, carrier.runner, schedulers)
        await manager.init_host()
        rounds = Rounds(BackendReconciler(parts, carrier.runner, base.database), base.clock)
        probes = [BackingStore(parts)] if config.common.enable_data_probe else []
        endpoints = [manager, Inventory(parts, rounds), *probes]
        servers = (
            _serving(config, host, *endpoints),
            _serving(config, config.common.host, *endpoints, topic=f"cinder-volume.{host}"),
        )
        await stack.enter_async_context(
            base.serve(*servers, carrier=carrier, binary="cinder-volume", topic="cinder-volume", host=host)
        )
        await stack.enter_async_context(alongside(rounds.run()))
        if daemon is not None:
            await stack.enter_async_context(alongside(daemon.keep(rounds.hurry)))
        await stack.enter_async_context(alongside(_report(manager, base.clock)))
        yield


async def _report(manager: VolumeManager, clock: Clock) -> None:
    while True:
        await manager.report_capabilities(Context(is_admin=True))
        await clock.sleep(CAPABILITIES_INTERVAL_S)


def _serving(config: CinderConfig, server: str, *endpoints: object, topic: str | None = None) -> Serving:
    return Serving(endpoints, server, topic=topic, exchange=config.common.control_exchange)


def _manager_client(config: CinderConfig, sender: Sender) -> VolumeManagerAPI:
    return VolumeManagerAPI.over(sender, exchange=config.common.control_exchange)


INSIDE = Inside(
    processes=(
        Process("api", "cinder-api", api),
        Process("scheduler", "cinder-scheduler", scheduler),
        Process("volume", "cinder-volume", volume),
    ),
    migrations=BRANCH,
    sagas=tuple(kind.saga for kind in BACKEND_FLOWS),
    find=find,
    auditor=CinderAuditor(),
)
