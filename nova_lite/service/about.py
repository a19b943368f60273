"""What nova tells the `lite` command about itself; what only its own processes need waits in wiring."""

from collections.abc import Sequence
from pathlib import Path

from common.app.config import Overrides, Section
from common.app.service import Service
from nova_lite.config import NovaConfig, load_nova, nova_sections
from nova_lite.contract import ComputeAPI, ComputeManagerAPI, GuestProbe, HostInventory
from nova_lite.ports.volumes import ServerEvents


def _load(files: Sequence[Path], overrides: Overrides, foreign: Sequence[Section]) -> NovaConfig:
    return load_nova(files, overrides=overrides, foreign=foreign)


SERVICE = Service(
    name="nova",
    load=_load,
    sections=nova_sections,
    contracts=(ComputeAPI, ServerEvents, ComputeManagerAPI, HostInventory, GuestProbe),
    inside="nova_lite.service.wiring:INSIDE",
)
