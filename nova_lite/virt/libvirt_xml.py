"""Libvirt's XML: what a machine, a disk and a secret are made of, and what a live machine's XML tells; pure functions.

Source: libvirt, "Domain XML format", "Secret XML format"; the disks are those of nova 34 (attach-flow 6.5).
"""

import base64
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

from common.base.errors import Misconfigured
from nova_lite.contract import Instance
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.host_side import KEYRINGS
from nova_lite.virt.qemu_argv import DISKS_MOST
from nova_lite.virt.volume_source import BlockSource, FileSource, IscsiSource, RbdSource, Volume

VirtType = Literal["qemu", "kvm"]

METADATA = "https://nova-lite/xmlns/instance/1.0"
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_SECRETS = uuid.UUID("0b5f7a53-3a51-4c43-9a2e-6d3a7a9d6c11")
_ALIAS = "ua-"

ET.register_namespace("lite", METADATA)
ET.register_namespace("qemu", _QEMU)


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtOptions:
    """How machines are made and how long they may take.

    connection_uri      where libvirt is reached: qemu:///system, qemu:///session
    virt_type           kvm, or qemu: TCG
    disks_max           root ports, and so volumes, of a machine: 1..24
    memory_mib_max      a machine gets its flavor's memory, but not more than this
    guest               what it boots; None: it is held before its first instruction
    keyrings            folder with the cephx keys of this host
    python              the interpreter that can import libvirt; None: it is looked for
    command_timeout_s   for one operation, a login at a target among them
    detach_timeout_s    for a guest to let go (nova's device_detach_timeout)
    destroy_timeout_s   for a machine to end: libvirt waits 10 s before it kills one that does not answer
    """

    connection_uri: str = "qemu:///system"
    virt_type: VirtType = "qemu"
    disks_max: int = 8
    memory_mib_max: int = 16
    unplug_by_guest: bool = False
    guest: GuestSystem | None = None
    keyrings: Path = KEYRINGS
    python: str | None = None
    command_timeout_s: float = 30.0
    detach_timeout_s: float = 20.0
    destroy_timeout_s: float = 40.0

    def __post_init__(self) -> None:
        if not 1 <= self.disks_max <= DISKS_MOST:
            raise Misconfigured(reason=f"disks_max is {self.disks_max}; wanted: 1 to {DISKS_MOST}")


@dataclass(frozen=True, slots=True)
class Secret:
    """What libvirt keeps in its memory while a disk is being plugged. `value` as the user knows it: a cephx key is in base64."""

    uuid: str
    kind: Literal["iscsi", "ceph"]
    value: str = field(repr=False)
    xml: str

    @property
    def base64(self) -> str:
        """What libvirt is to keep, in base64."""
        return self.value if self.kind == "ceph" else base64.b64encode(self.value.encode()).decode()


@dataclass(frozen=True, slots=True)
class FoundDisk:
    """A volume of a live machine. `alias` is its name in QEMU's tree."""

    volume_id: str
    mountpoint: str
    alias: str


def machine_name(instance_uuid: str) -> str:
    """The domain's name."""
    return f"instance-{instance_uuid}"


def disk_alias(volume_id: str) -> str:
    """The disk's name in libvirt and in QEMU, by which its events tell of it."""
    return f"{_ALIAS}{volume_id}"


def secret_uuid(volume_id: str) -> str:
    """The secret's UUID: a disk that was cut short is recognised by it."""
    return str(uuid.uuid5(_SECRETS, volume_id))


def domain_xml(instance: Instance, options: LibvirtOptions, *, host: str) -> str:
    """The machine of `instance`, without volumes. `host`: the compute host whose it is; several may use one libvirt.

    The domain's definition never holds a volume: what a machine gets when it is started again, its rows say and no old
    definition does.
    """
    domain = ET.Element("domain", type=options.virt_type)
    _text(domain, "name", machine_name(instance.uuid))
    _text(domain, "uuid", instance.uuid)
    ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{METADATA}}}instance", host=host)
    _text(domain, "memory", str(min(instance.memory_mb or options.memory_mib_max, options.memory_mib_max)), unit="MiB")
    _text(domain, "vcpu", str(max(instance.vcpus, 1)))
    os = ET.SubElement(domain, "os")
    _text(os, "type", "hvm", arch="x86_64", machine="q35")
    if options.guest is not None:
        _text(os, "kernel", options.guest.kernel)
        _text(os, "initrd", options.guest.initrd)
        _text(os, "cmdline", options.guest.cmdline)
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    ET.SubElement(domain, "cpu", mode="host-passthrough" if options.virt_type == "kvm" else "maximum")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_crash", "destroy")
    _devices(domain, options)
    if not options.unplug_by_guest and options.guest is None:
        commandline = ET.SubElement(domain, f"{{{_QEMU}}}commandline")
        for word in ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"):
            ET.SubElement(commandline, f"{{{_QEMU}}}arg", value=word)
    return _shown(domain)


def disk_xml(volume: Volume, *, ceph_conf: str) -> str:
    """The <disk> of a volume. `ceph_conf`: path of the file that bounds librbd's waits."""
    match volume.source:
        case FileSource(path):
            disk = _disk(volume, "file", cache="writeback")
            ET.SubElement(disk, "source", file=path)
        case BlockSource(path):
            disk = _disk(volume, "block", cache="none", io="native")
            ET.SubElement(disk, "source", dev=path)
        case IscsiSource() as iscsi:
            disk = _disk(volume, "network", cache="none")
            _iscsi(disk, iscsi, volume.volume_id)
        case RbdSource() as rbd:
            disk = _disk(volume, "network", cache="writeback")
            _rbd(disk, rbd, volume.volume_id, ceph_conf)
        case unknown:
            assert_never(unknown)
    ET.SubElement(disk, "target", dev=volume.target, bus="virtio")
    _text(disk, "serial", volume.volume_id)
    _limits(disk, volume)
    return _shown(disk)


def secret_mark(instance_uuid: str) -> str:
    """What the description of every secret of a machine begins with."""
    return f"{METADATA} machine {instance_uuid}"


def parse_secret(secret: str) -> tuple[str, str] | None:
    """(machine, volume) of a secret's XML; None when it is not ours."""
    words = (ET.fromstring(secret).findtext("description") or "").split()  # noqa: S314  # libvirt's own words
    match words:
        case [mark, "machine", instance_uuid, "volume", volume_id] if mark == METADATA:
            return instance_uuid, volume_id
        case _:
            return None


def disk_secret(volume: Volume, instance_uuid: str) -> Secret | None:
    """What must be told to libvirt before the disk can be plugged. Ephemeral and private: it is never written and never read back."""
    match volume.source:
        case IscsiSource(password=str(value)):
            kind: Literal["iscsi", "ceph"] = "iscsi"
        case RbdSource(key=str(value)):
            kind = "ceph"
        case _:
            return None
    secret = ET.Element("secret", ephemeral="yes", private="yes")
    _text(secret, "uuid", secret_uuid(volume.volume_id))
    _text(secret, "description", f"{secret_mark(instance_uuid)} volume {volume.volume_id}")
    usage = ET.SubElement(secret, "usage", type=kind)
    _text(usage, "target" if kind == "iscsi" else "name", f"nova-lite volume {volume.volume_id}")
    return Secret(secret_uuid(volume.volume_id), kind, value, _shown(secret))


def parse_disks(domain: str) -> dict[str, FoundDisk]:
    """volume id -> disk, of every volume in a domain's XML."""
    found = {}
    for disk in ET.fromstring(domain).iterfind("devices/disk"):  # noqa: S314  # libvirt's own words
        serial, target, alias = disk.findtext("serial"), disk.find("target"), disk.find("alias")
        if serial and target is not None:
            name = alias.get("name", "") if alias is not None else ""
            found[serial] = FoundDisk(serial, f"/dev/{target.get('dev')}", name)
    return found


def is_of_host(domain: str, host: str) -> bool:
    """Whether a domain's XML says that it is a machine of that compute host."""
    mark = ET.fromstring(domain).find(f"metadata/{{{METADATA}}}instance")  # noqa: S314  # libvirt's own words
    return mark is not None and mark.get("host") == host


def _devices(domain: ET.Element, options: LibvirtOptions) -> None:
    devices = ET.SubElement(domain, "devices")
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for number in range(1, options.disks_max + 1):
        ET.SubElement(devices, "controller", type="pci", index=str(number), model="pcie-root-port")
    ET.SubElement(devices, "controller", type="usb", model="none")
    if options.guest is not None:
        serial = ET.SubElement(devices, "serial", type="pty")
        ET.SubElement(serial, "target", port="0")
    ET.SubElement(devices, "memballoon", model="none")


def _disk(volume: Volume, kind: str, **driver: str) -> ET.Element:
    disk = ET.Element("disk", type=kind, device="disk")
    words = {"name": "qemu", "type": "raw"} | driver | ({"discard": "unmap"} if volume.discards else {})
    ET.SubElement(disk, "driver", words)
    ET.SubElement(disk, "alias", name=disk_alias(volume.volume_id))
    return disk


def _iscsi(disk: ET.Element, iscsi: IscsiSource, volume_id: str) -> None:
    source = ET.SubElement(disk, "source", protocol="iscsi", name=f"{iscsi.target}/{iscsi.lun}")
    host, _, port = iscsi.portal.rpartition(":")
    ET.SubElement(source, "host", name=host.strip("[]"), port=port)
    if iscsi.initiator is not None:
        ET.SubElement(ET.SubElement(source, "initiator"), "iqn", name=iscsi.initiator)
    if iscsi.user is not None:
        auth = ET.SubElement(disk, "auth", username=iscsi.user)
        ET.SubElement(auth, "secret", type="iscsi", uuid=secret_uuid(volume_id))


def _rbd(disk: ET.Element, rbd: RbdSource, volume_id: str, ceph_conf: str) -> None:
    source = ET.SubElement(disk, "source", protocol="rbd", name=f"{rbd.pool}/{rbd.image}")
    for host, port in rbd.monitors:
        ET.SubElement(source, "host", name=host.strip("[]"), port=port)
    ET.SubElement(source, "config", file=ceph_conf)
    if rbd.user is not None:
        auth = ET.SubElement(disk, "auth", username=rbd.user)
        known = secret_uuid(volume_id) if rbd.key is not None else rbd.secret_uuid or ""
        ET.SubElement(auth, "secret", type="ceph", uuid=known)


def _limits(disk: ET.Element, volume: Volume) -> None:
    if volume.is_read_only:
        ET.SubElement(disk, "readonly")
    if volume.is_shareable:
        ET.SubElement(disk, "shareable")
    if volume.iotune:
        iotune = ET.SubElement(disk, "iotune")
        for name, value in volume.iotune.items():
            _text(iotune, name, str(value))
    if volume.block_sizes is not None:
        logical, physical = volume.block_sizes
        ET.SubElement(disk, "blockio", logical_block_size=str(logical), physical_block_size=str(physical))


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _shown(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode") + "\n"
