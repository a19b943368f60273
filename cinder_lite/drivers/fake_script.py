"""Failures of the fake driver as a configuration says them: fake_failures = create_volume, delete_volume:after:2:VolumeIsBusy"""

from collections.abc import Iterable

from cinder_lite.errors import DriverNotInitialized, SnapshotIsBusy, VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeDriver
from common.base.errors import Fault
from common.testing.script import Script, When

_ERRORS: dict[str, Fault] = {
    "VolumeBackendAPIException": VolumeBackendAPIException(data="fake_failures says so"),
    "VolumeIsBusy": VolumeIsBusy(volume_name="a volume", reason="fake_failures says so"),
    "SnapshotIsBusy": SnapshotIsBusy(snapshot_name="a snapshot", reason="fake_failures says so"),
    "DriverNotInitialized": DriverNotInitialized(backend="fake", reason="fake_failures says so"),
}
_VERBS = tuple(name for name in vars(VolumeDriver) if not name.startswith("_") and name != "local_path")


def fake_script(failures: Iterable[str]) -> Script:
    """What is to go wrong. Each is VERB[:before|after[:TIMES[:ERROR]]]; by default before its effect, once, VolumeBackendAPIException.

    Raises ValueError, which says what is wrong with which.
    """
    script = Script()
    for failure in failures:
        verb, when, times, error = (*failure.split(":"), *("", "", "")[: max(3 - failure.count(":"), 0)])[:4]
        if verb not in _VERBS:
            raise ValueError(f"{failure!r} names no verb of a volume driver; there are {', '.join(_VERBS)}")
        if failure.count(":") > 3 or when not in {"", *When} or not (times or "1").isdecimal() or error not in {"", *_ERRORS}:
            raise ValueError(f"{failure!r} is not VERB[:before|after[:TIMES[:ERROR]]] with ERROR one of {', '.join(_ERRORS)}")
        fault = _ERRORS[error or "VolumeBackendAPIException"]
        script.fail_next(verb, fault, When(when or "before"), times=int(times or 1))
    return script
