"""Nova's part in `lite doctor`: its rows beside what every compute host has, and beside cinder's attachments."""

from collections.abc import Mapping

from common.app.auditing import Audit, Look, asked, unanswered
from common.base.errors import Fault, NotFound
from common.base.violation import UNKNOWN, Violation
from nova_lite.clients.cinder import volumes as cinder_volumes
from nova_lite.config import NovaConfig
from nova_lite.contract import HostInventory
from nova_lite.domain.audit import AttachmentFact, Facts, VolumeFact, audit
from nova_lite.ports.volumes import Volume, Volumes
from nova_lite.store.audit import audited_rows

BINARY = "nova-compute"
CINDER = "cinder-api"


class NovaAuditor:
    """Implements `common.app.auditing.Auditor`."""

    async def audit(self, config: NovaConfig, look: Look) -> Audit:
        client = HostInventory.over(look.rpc, exchange=config.common.control_exchange)
        reports, faults = await asked(look.speaking(BINARY), lambda host: client.on(host).inventory(look.ctx))
        instances, mappings, secrets = await audited_rows(look.database, look.is_old)
        violations = unanswered(BINARY, faults)
        volumes: Mapping[str, VolumeFact] | None = None
        if look.speaking(CINDER):
            try:
                wanted = {mapping.volume_id for mapping in mappings}
                wanted |= {volume_id for report in reports.values() for disks in report.machines.values() for volume_id in disks}
                volumes = await _volumes(cinder_volumes(look.rpc, exchange=config.cinder_control_exchange), wanted, look)
            except Fault as fault:
                violations.append(_silent_cinder(str(fault)))
        elif mappings and not look.hosts(CINDER):
            violations.append(_silent_cinder("no cinder-api has ever run on this database"))
        facts = Facts(
            instances=instances,
            mappings=mappings,
            secrets=secrets,
            volumes=volumes,
            hosts=look.hosts(BINARY),
            reports=reports,
        )
        return Audit((*violations, *audit(facts)), {"servers": len(instances), "hosts": len(reports)})

    async def reconcile(self, config: NovaConfig, look: Look) -> list[str]:
        client = HostInventory.over(look.rpc, exchange=config.common.control_exchange)
        done, faults = await asked(look.speaking(BINARY), lambda host: client.on(host).reconcile(look.ctx))
        return [f"{host}: {line}" for host, lines in sorted(done.items()) for line in lines] + [
            f"{host}: could not mend anything: {fault}" for host, fault in sorted(faults.items())
        ]


async def _volumes(cinder: Volumes, wanted: set[str], look: Look) -> dict[str, VolumeFact]:
    """Cinder's volumes by id. A list is cut at its length: those that are wanted and that it lacks are asked for one by one."""
    found = {volume.id: _fact(volume) for volume in await cinder.get_all(look.ctx)}
    for volume_id in sorted(wanted - found.keys()):
        try:
            found[volume_id] = _fact(await cinder.get(look.ctx, volume_id=volume_id))
        except NotFound:
            continue
    return found


def _fact(volume: Volume) -> VolumeFact:
    return VolumeFact(
        id=volume.id,
        status=volume.status,
        multiattach=volume.multiattach,
        attachments=tuple(
            AttachmentFact(
                id=row.id,
                status=row.attach_status,
                instance_uuid=row.instance_uuid,
                host=row.attached_host,
                mountpoint=row.mountpoint,
            )
            for row in volume.volume_attachment
        ),
    )


def _silent_cinder(why: str) -> Violation:
    return Violation(
        UNKNOWN, f"service:{CINDER}", f"nova's servers could not be compared with cinder's attachments: {why}", "Mend cinder-api"
    )
