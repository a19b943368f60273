"""The fake driver fails as it is told, before or after the effect."""

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.errors import VolumeBackendAPIException
from common.testing.script import When

VOLUME = Volume(id="1", size=1, status=VolumeStatus.CREATING)


@pytest.mark.parametrize(("when", "left"), [(When.BEFORE, {}), (When.AFTER, {"volume-1": 1})])
async def test_a_scripted_fault_strikes_once_before_or_after_the_effect(when: When, left: dict[str, int]) -> None:
    driver = FakeDriver()
    driver.script.fail_next("create_volume", VolumeBackendAPIException(data="told so"), when)
    with pytest.raises(VolumeBackendAPIException, match="told so"):
        await driver.create_volume(VOLUME)
    assert driver.sizes == left
    await driver.create_volume(VOLUME)
    assert driver.sizes == {"volume-1": 1}
    assert driver.acts == ["create_volume volume-1"] * 2
