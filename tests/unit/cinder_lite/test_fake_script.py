"""Failures of the fake driver, as cinder.conf says them."""

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.drivers.fake_script import fake_script
from cinder_lite.errors import VolumeBackendAPIException, VolumeIsBusy

VOLUME = Volume(id="1", size=1, status=VolumeStatus.CREATING)


async def test_what_is_written_goes_wrong_in_that_order() -> None:
    driver = FakeDriver(script=fake_script(["create_volume:after", "delete_volume:before:2:VolumeIsBusy"]))
    with pytest.raises(VolumeBackendAPIException, match="fake_failures says so"):
        await driver.create_volume(VOLUME)
    assert set(driver.sizes) == {"volume-1"}
    for _ in range(2):
        with pytest.raises(VolumeIsBusy):
            await driver.delete_volume(VOLUME)
    await driver.delete_volume(VOLUME)
    assert driver.sizes == {}


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("creat_volume", "names no verb of a volume driver; there are check_for_setup_error, create_volume"),
        ("create_volume:during", "is not VERB"),
        ("create_volume:after:often", "is not VERB"),
        ("create_volume:after:1:OSError", "ERROR one of VolumeBackendAPIException, VolumeIsBusy"),
        ("create_volume:after:1:VolumeIsBusy:x", "is not VERB"),
    ],
)
def test_a_slip_is_named(failure: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fake_script([failure])
