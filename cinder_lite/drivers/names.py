"""Which names in a place are ours: volume_name_template and snapshot_name_template of cinder, with a uuid in them."""

from common.base.ids import is_uuid

_VOLUME, _SNAPSHOT = "volume-", "snapshot-"


def is_volume_name(name: str) -> bool:
    """True for volume-<uuid> and nothing else."""
    return name.startswith(_VOLUME) and is_uuid(name.removeprefix(_VOLUME))


def is_snapshot_name(name: str) -> bool:
    """True for snapshot-<uuid> and nothing else."""
    return name.startswith(_SNAPSHOT) and is_uuid(name.removeprefix(_SNAPSHOT))
