"""Cinder's errors under cinder's names: an OpenStack client's `except cinder.exception.InvalidVolume` catches ours."""

from common.base.errors import Broken, Conflict, Fault, Invalid, NotFound, Unavailable


class VolumeNotFound(NotFound):
    """Volume {volume_id} could not be found."""

    wire = ("cinder.exception", "VolumeNotFound")


class AmbiguousVolume(Conflict):
    """More than one volume is named {name}: {candidates}. Use an id."""


class InvalidInput(Invalid):
    """Invalid input received: {reason}"""

    wire = ("cinder.exception", "InvalidInput")


class InvalidVolume(Invalid):
    """Invalid volume: {reason}"""

    wire = ("cinder.exception", "InvalidVolume")


class VolumeInUse(Conflict):
    """Volume {volume_id} is attached to server {instance_uuid} as {mountpoint}; it must be detached first."""

    wire = ("cinder.exception", "VolumeAttached")


class VolumeAttachmentNotFound(NotFound):
    """Volume attachment {attachment_id} could not be found: it was detached, or another attachment has taken the volume."""

    wire = ("cinder.exception", "VolumeAttachmentNotFound")


class InvalidConnectorException(Invalid):
    """Connector doesn't have required information: {missing}"""

    wire = ("cinder.exception", "InvalidConnectorException")


class NoValidBackend(Fault):
    """No valid backend was found. {reason}"""

    wire = ("cinder.exception", "NoValidBackend")


class VolumeBackendAPIException(Broken):
    """Bad or unexpected response from the storage volume backend API: {data}"""

    wire = ("cinder.exception", "VolumeBackendAPIException")


class ExportFailure(Broken):
    """Failed to export volume {volume_id}: {reason}"""

    # Cinder's code, but not Invalid: something may have been made, so the step is taken back.
    code = 400
    wire = ("cinder.exception", "ExportFailure")


class TargetUnavailable(Unavailable):
    """Target daemon {name} is not available: {reason}"""


class DriverNotInitialized(Unavailable):
    """Volume driver of backend {backend} is not ready: {reason}"""

    wire = ("cinder.exception", "DriverNotInitialized")


class VolumeIsBusy(Conflict):
    """deleting volume {volume_name} that has clients: {reason}"""

    wire = ("cinder.exception", "VolumeIsBusy")


class SnapshotNotFound(NotFound):
    """Snapshot {snapshot_id} could not be found."""

    wire = ("cinder.exception", "SnapshotNotFound")


class AmbiguousSnapshot(Conflict):
    """More than one snapshot is named {name}: {candidates}. Use an id."""


class InvalidSnapshot(Invalid):
    """Invalid snapshot: {reason}"""

    wire = ("cinder.exception", "InvalidSnapshot")


class SnapshotIsBusy(Conflict):
    """deleting snapshot {snapshot_name} that has dependent volumes: {reason}"""

    wire = ("cinder.exception", "SnapshotIsBusy")


class PortalNotBound(Unavailable):
    """tgtd does not listen on {portal}: it listens on {found}. Something else may hold that port; free it or set target_port."""
