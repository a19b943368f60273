"""Volume drivers of third parties: one package, one entry point.

    [project.entry-points."cinder_lite.drivers"]
    "acme.cinder.AcmeDriver" = "acme.cinder:PLUGIN"

The entry point's name is what a stanza of cinder.conf says in volume_driver; the object is a `Plugin`. `lite driver certify STANZA`
then says whether the driver keeps the word of its port, without a cloud.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from oslo_config import cfg

from common.base.errors import Misconfigured

GROUP = "cinder_lite.drivers"


@dataclass(frozen=True, slots=True)
class Plugin:
    """What a third party's driver is to cinder-volume.

    options   of its own in a stanza, beside the ones that every backend has
    open      (the stanza as `cinder_lite.config.Backend`, its own options by name) -> a `cinder_lite.ports.driver.VolumeDriver`
    bench     (driver) -> awaits to a `cinder_lite.certify.driver_bench.DriverBench`; None: volumes are files or devices of this machine
    """

    open: Callable[[Any, Mapping[str, Any]], Any]
    options: Sequence[cfg.Opt] = ()
    bench: Callable[[Any], Any] | None = None


def installed() -> dict[str, Callable[[], Any]]:
    """What volume_driver may say beside our own -> what reads the plugin's module."""
    return {entry.name: entry.load for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def plugin(name: str) -> Plugin:
    """Raises Misconfigured when the entry point is no Plugin, or its module cannot be read."""
    try:
        found = installed()[name]()
    except (ImportError, AttributeError) as exc:
        raise Misconfigured(reason=f"volume driver {name} cannot be loaded: {exc}") from exc
    if not isinstance(found, Plugin):
        raise Misconfigured(reason=f"entry point {name} of {GROUP} is {type(found).__name__}; wanted a cinder_lite.plugin.Plugin")
    return found
