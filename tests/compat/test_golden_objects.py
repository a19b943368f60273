"""Objects as the real nova 34 and cinder 29 wrote them (tests/compat/golden says how they were captured): ours are the same, both ways."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cinder_lite.contract import AttachStatus, Volume, VolumeAttachment, VolumeStatus
from common.wire.values import from_primitive, to_primitive
from nova_lite.contract import BlockDeviceMapping, Instance, InstanceFault, PowerState, TaskState, VmState

GOLDEN = {
    f"{path.stem}: {name}": found
    for path in sorted(Path(__file__).with_name("golden").glob("*.json"))
    for name, found in json.loads(path.read_text())["objects"].items()
}
NOW = datetime(2026, 11, 23, 3, 12, 6, tzinfo=UTC)
SERVER, VOLUME, ATTACHMENT, MAPPING = (f"{digit * 8}-1111-4111-8111-{digit * 12}" for digit in "abcd")

INSTANCE = Instance(
    uuid=SERVER, display_name="vm", vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, host="cmp1", node="cmp1.example.org",
    flavor="m1.small", memory_mb=2048, vcpus=1, root_gb=20, image_ref="", user_id="u1", project_id="p1", availability_zone="nova",
    created_at=NOW, updated_at=NOW, launched_at=NOW,
    fault=InstanceFault(code=500, message="No valid host", host="cmp1", created_at=NOW),
)  # fmt: skip
YOUNG_INSTANCE = Instance(uuid=SERVER, display_name="vm", vm_state=VmState.BUILDING, task_state=TaskState.SCHEDULING)
BDM = BlockDeviceMapping(
    uuid=MAPPING, instance_uuid=SERVER, device_type="disk", disk_bus="virtio", device_name="/dev/vdb", volume_id=VOLUME, volume_size=1,
    attachment_id=ATTACHMENT, created_at=NOW,
)  # fmt: skip
ATTACHED = VolumeAttachment(
    id=ATTACHMENT, volume_id=VOLUME, instance_uuid=SERVER, attached_host="cmp1", mountpoint="/dev/vdb", attach_time=NOW,
    attach_mode="rw", attach_status=AttachStatus.ATTACHED,
)  # fmt: skip
IN_USE = Volume(
    id=VOLUME, size=1, status=VolumeStatus.IN_USE, display_name="data", display_description="of the vm", host="host1@tgt#pool",
    volume_type="iscsi", availability_zone="nova", attach_status=AttachStatus.ATTACHED, provider_location="127.0.0.1:3260,1 iqn 1",
    user_id="u1", project_id="p1", created_at=NOW, updated_at=NOW, launched_at=NOW, volume_attachment=(ATTACHED,),
)  # fmt: skip
YOUNG_VOLUME = Volume(id=VOLUME, size=1, status=VolumeStatus.CREATING)

EXPECTED: dict[str, tuple[Any, Any]] = {
    "nova: Instance": (Instance, INSTANCE),
    "nova: Instance, young": (Instance, YOUNG_INSTANCE),
    "nova: InstanceList": (list[Instance], [INSTANCE]),
    "nova: BlockDeviceMapping": (BlockDeviceMapping, BDM),
    "nova: BlockDeviceMappingList": (list[BlockDeviceMapping] | None, [BDM]),
    "cinder: Volume": (Volume | None, IN_USE),
    "cinder: Volume, young": (Volume, YOUNG_VOLUME),
    "cinder: VolumeList": (list[Volume], [IN_USE]),
    "cinder: VolumeAttachment": (VolumeAttachment, ATTACHED),
    "cinder: VolumeAttachmentList": (tuple[VolumeAttachment, ...], (ATTACHED,)),
}
WHOLE = [name for name in EXPECTED if "young" not in name]


def of_ours(theirs: Any, ours: Any) -> Any:
    """The part of the real primitives that has a counterpart in ours, `changes` left out."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return {key: of_ours(value, ours[key]) for key, value in theirs.items() if key in ours}
    if isinstance(theirs, list) and isinstance(ours, list):
        return [of_ours(*pair) for pair in zip(theirs, ours, strict=True)]
    return theirs


def test_every_captured_object_has_its_expectation() -> None:
    assert GOLDEN.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_object_is_read_as_ours(name: str) -> None:
    wanted, expected = EXPECTED[name]
    before = copy.deepcopy(GOLDEN[name])
    assert from_primitive(GOLDEN[name], wanted) == expected
    assert GOLDEN[name] == before


@pytest.mark.parametrize("name", WHOLE)
def test_what_we_send_is_in_the_real_object_key_for_key(name: str) -> None:
    wanted, expected = EXPECTED[name]
    ours = to_primitive(expected, wanted)
    assert ours == of_ours(GOLDEN[name], ours)
    assert from_primitive(json.loads(json.dumps(ours)), wanted) == expected


@pytest.mark.parametrize("name", EXPECTED)
def test_the_data_alone_is_taken_too(name: str) -> None:
    wanted, expected = EXPECTED[name]
    assert from_primitive(to_primitive(expected), wanted) == expected
