"""Which /dev/vdX a volume gets (attach-flow 6.6; nova.compute.utils, nova.block_device)."""

import re
from collections.abc import Iterable

from nova_lite.errors import DevicePathInUse, InvalidDevicePath, TooManyDiskDevices

_DEVICE = re.compile(r"(/dev/x?[a-z]?d?)([a-z]+)[0-9]*")
"""The pattern of nova's API schema for `device`: a prefix that ends in d, then letters."""


def letters(index: int) -> str:
    """The disk letters of an index >= 0: 0 a, 25 z, 26 aa, 701 zz, 702 aaa."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def split_device(path: str) -> tuple[str, str]:
    """("/dev/vd", "b") of "/dev/vdb". Raises InvalidDevicePath for anything that is not a disk's name."""
    match = _DEVICE.fullmatch(path)
    if match is None:
        raise InvalidDevicePath(path=path)
    return match[1], match[2]


def next_device_name(*, prefix: str, root: str, used: Iterable[str], requested: str | None, disks_max: int) -> str:
    """The name for one more disk: the requested one under the machine's own prefix, else the first free one.

    prefix      "/dev/vd": what the hypervisor calls its disks; a requested prefix is replaced by it
    used        names of the disks that the server has
    disks_max   most volumes of one server
    Raises InvalidDevicePath, DevicePathInUse, TooManyDiskDevices.
    """
    names = tuple(used)
    taken = {split_device(name)[1] for name in (root, *names)}
    if len(names) >= disks_max:
        raise TooManyDiskDevices(maximum=disks_max)
    if requested is not None:
        wanted = split_device(requested)[1]
        if wanted in taken:
            raise DevicePathInUse(path=requested)
        return prefix + wanted
    return prefix + next(name for name in map(letters, range(len(taken) + 1)) if name not in taken)
