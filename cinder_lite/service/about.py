"""What cinder tells the `lite` command about itself; what only its own processes need waits in wiring."""

from collections.abc import Sequence
from pathlib import Path

from cinder_lite.config import CinderConfig, cinder_sections, load_cinder
from cinder_lite.contract import BackendInventory, BackingStoreProbe, SchedulerAPI, VolumeAPI, VolumeManagerAPI
from common.app.config import Overrides, Section
from common.app.service import Service


def _load(files: Sequence[Path], overrides: Overrides, foreign: Sequence[Section]) -> CinderConfig:
    return load_cinder(files, overrides=overrides, foreign=foreign)


SERVICE = Service(
    name="cinder",
    load=_load,
    sections=cinder_sections,
    contracts=(VolumeAPI, SchedulerAPI, VolumeManagerAPI, BackendInventory, BackingStoreProbe),
    inside="cinder_lite.service.wiring:INSIDE",
)
