"""Nova's errors under nova's names: an OpenStack client's `except nova.exception.InstanceNotFound` catches ours."""

from common.base.errors import Ambiguous, Broken, Conflict, Fault, Invalid, NotFound, Timeout, Unavailable


class InstanceNotFound(NotFound):
    """Instance {instance_id} could not be found."""

    wire = ("nova.exception", "InstanceNotFound")


class AmbiguousInstance(Ambiguous):
    """More than one server is named {name}: {candidates}. Use an id."""


class InstanceInvalidState(Conflict):
    """Instance {instance_uuid} is in vm_state {vm_state}, task_state {task_state}. Cannot {method} while the instance is in this state; wanted: {expected}."""

    wire = ("nova.exception", "InstanceInvalidState")


class FlavorNotFound(NotFound):
    """Flavor {flavor} could not be found. Known flavors: {known}"""

    wire = ("nova.exception", "FlavorNotFound")


class InvalidDevicePath(Invalid):
    """The supplied device path ({path}) is invalid. Wanted: a name like /dev/vdb"""

    wire = ("nova.exception", "InvalidDevicePath")


class DevicePathInUse(Conflict):
    """The supplied device path ({path}) is in use."""

    wire = ("nova.exception", "DevicePathInUse")


class TooManyDiskDevices(Invalid):
    """The maximum allowed number of disk devices ({maximum}) to attach to a single instance has been exceeded."""

    code = 403
    wire = ("nova.exception", "TooManyDiskDevices")


class VolumeAlreadyAttached(Conflict):
    """Volume {volume_id} is already attached to server {instance_uuid} ({server}) as {device}."""


class VolumeBDMNotFound(NotFound):
    """No volume Block Device Mapping with id {volume_id} on server {instance_uuid}: the volume is not attached to it."""

    wire = ("nova.exception", "VolumeBDMNotFound")


class NoValidHost(Fault):
    """No valid host was found. {reason}"""

    wire = ("nova.exception", "NoValidHost")


class ComputeServiceUnavailable(Unavailable):
    """Compute service of {host} is unavailable at this time: {reason}"""

    code = 409
    wire = ("nova.exception", "ComputeServiceUnavailable")


class HypervisorUnavailable(Unavailable):
    """Connection to the machine {name} is broken: {reason}"""

    wire = ("nova.exception", "HypervisorUnavailable")


class HypervisorRefused(Broken):
    """The machine {name} refused {command}: {reason}"""


class DeviceDetachFailed(Timeout):
    """Device {device} did not leave the machine {name} within {timeout_s:g} s: the guest has not let go of it."""

    retryable = False  # an answer: the disk stays, and whoever wants it away asks again
    wire = ("nova.exception", "DeviceDetachFailed")


class VolumeConnectionFailed(Broken):
    """Connecting volume {volume_id} on this host failed: {reason}"""


class MachineLost(Broken):
    """The machine of server {instance_uuid} is not alive on host {host} any more."""
