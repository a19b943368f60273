"""The XML that libvirt gets, beside what nova 34's classes write (attach-flow 6.5)."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from common.base.errors import Misconfigured
from nova_lite.contract import Instance, VmState
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.libvirt_xml import (
    LibvirtOptions,
    disk_secret,
    disk_xml,
    domain_xml,
    is_of_host,
    parse_disks,
    parse_secret,
    secret_mark,
    secret_uuid,
)
from nova_lite.virt.volume_source import read_volume

MACHINE = "11111111-2222-4333-8444-555555555555"
VOLUME = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
SECRET = "Sesame-never-shown-16"
KEY = "QVFEc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW0="

BLOCK = f"""\
<disk type="block" device="disk">
  <driver name="qemu" type="raw" cache="none" io="native" />
  <alias name="ua-{VOLUME}" />
  <source dev="/dev/sdb" />
  <target dev="vdb" bus="virtio" />
  <serial>{VOLUME}</serial>
  <iotune>
    <total_iops_sec>500</total_iops_sec>
  </iotune>
</disk>
"""

RBD = f"""\
<disk type="network" device="disk">
  <driver name="qemu" type="raw" cache="writeback" discard="unmap" />
  <alias name="ua-{VOLUME}" />
  <source protocol="rbd" name="volumes/volume-{VOLUME}">
    <host name="10.0.0.11" port="6789" />
    <config file="/c" />
  </source>
  <auth username="cinder">
    <secret type="ceph" uuid="457eb676-33da-42ec-9a8c-9293d545c337" />
  </auth>
  <target dev="vdb" bus="virtio" />
  <serial>{VOLUME}</serial>
  <readonly />
  <shareable />
</disk>
"""

ISCSI = f"""\
<disk type="network" device="disk">
  <driver name="qemu" type="raw" cache="none" />
  <alias name="ua-{VOLUME}" />
  <source protocol="iscsi" name="iqn.2010-10.org.openstack:volume-1/1">
    <host name="fd00::4" port="3260" />
    <initiator>
      <iqn name="iqn.x:cmp1" />
    </initiator>
  </source>
  <auth username="u1">
    <secret type="iscsi" uuid="{secret_uuid(VOLUME)}" />
  </auth>
  <target dev="vdb" bus="virtio" />
  <serial>{VOLUME}</serial>
  <blockio logical_block_size="512" physical_block_size="4096" />
</disk>
"""

FILE = f"""\
<disk type="file" device="disk">
  <driver name="qemu" type="raw" cache="writeback" />
  <alias name="ua-{VOLUME}" />
  <source file="/v/a &lt;b&gt; &amp; c" />
  <target dev="vdb" bus="virtio" />
  <serial>{VOLUME}</serial>
</disk>
"""

CHAP = {"auth_method": "CHAP", "auth_username": "u1", "auth_password": SECRET}
TARGET = {"target_portal": "[fd00::4]:3260", "target_iqn": "iqn.2010-10.org.openstack:volume-1", "target_lun": 1}
CEPH = {"name": f"volumes/volume-{VOLUME}", "hosts": ["10.0.0.11"], "ports": ["6789"], "auth_enabled": True}
CEPH |= {"auth_username": "cinder", "secret_type": "ceph", "secret_uuid": "457eb676-33da-42ec-9a8c-9293d545c337"}


def info(kind: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"driver_volume_type": kind, "serial": VOLUME, "data": data, **more}


GOLDEN = {
    "a host's own login": (info("iscsi", TARGET | {"device_path": "/dev/sdb", "qos_specs": {"total_iops_sec": "500", "x": "y"}}), BLOCK),
    "an image": (info("rbd", CEPH | {"access_mode": "ro", "discard": True}, multiattach=True), RBD),
    "a target": (
        info("iscsi", TARGET | CHAP | {"logical_block_size": "512", "physical_block_size": "4096"}, connector={"initiator": "iqn.x:cmp1"}),
        ISCSI,
    ),
    "a file": (info("local", {"device_path": "/v/a <b> & c"}), FILE),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_a_disk_is_what_nova_would_write(name: str) -> None:
    connection_info, wanted = GOLDEN[name]
    assert disk_xml(read_volume(connection_info, machine="vm", mountpoint="/dev/vdb"), ceph_conf="/c") == wanted


def test_a_key_that_cinder_sent_is_libvirts_own_secret_for_a_moment() -> None:
    keyring = f"[client.other]\n\tkey = AAAA\n[client.cinder]\n\tkey = {KEY}\n\tcaps mon = allow\n"
    volume = read_volume(info("rbd", CEPH | {"keyring": keyring}), machine="vm", mountpoint="/dev/vdb")
    secret = disk_secret(volume, MACHINE)
    assert secret is not None
    assert secret.base64 == KEY
    assert ET.fromstring(disk_xml(volume, ceph_conf="/c")).find("auth/secret").get("uuid") == secret.uuid  # type: ignore[union-attr]


def test_a_secret_is_kept_in_memory_only_and_tells_whose_it_is_and_not_what() -> None:
    volume = read_volume(info("iscsi", TARGET | CHAP), machine="vm", mountpoint="/dev/vdb")
    secret = disk_secret(volume, MACHINE)
    assert secret is not None
    assert ET.fromstring(secret.xml).attrib == {"ephemeral": "yes", "private": "yes"}
    assert parse_secret(secret.xml) == (MACHINE, VOLUME)
    assert secret_mark(MACHINE) in secret.xml
    assert SECRET not in f"{secret!r} {secret.xml} {volume!r} {disk_xml(volume, ceph_conf='/c')}"
    assert parse_secret("<secret><description>an operator's</description></secret>") is None
    assert parse_secret("<secret/>") is None


def test_what_needs_no_secret_has_none() -> None:
    for connection_info in (info("local", {"device_path": "/v"}), info("iscsi", TARGET), info("rbd", CEPH)):
        assert disk_secret(read_volume(connection_info, machine="vm", mountpoint="/dev/vdb"), MACHINE) is None


def server(**more: Any) -> Instance:
    return Instance(uuid=MACHINE, display_name="vm <1>", vm_state=VmState.BUILDING, memory_mb=2048, vcpus=2, **more)


DOMAIN = f"""\
<domain xmlns:lite="https://nova-lite/xmlns/instance/1.0" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0" type="qemu">
  <name>instance-{MACHINE}</name>
  <uuid>{MACHINE}</uuid>
  <metadata>
    <lite:instance host="cmp1" />
  </metadata>
  <memory unit="MiB">16</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
  </os>
  <features>
    <acpi />
  </features>
  <cpu mode="maximum" />
  <on_reboot>restart</on_reboot>
  <on_poweroff>destroy</on_poweroff>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type="pci" index="0" model="pcie-root" />
    <controller type="pci" index="1" model="pcie-root-port" />
    <controller type="usb" model="none" />
    <memballoon model="none" />
  </devices>
  <qemu:commandline>
    <qemu:arg value="-global" />
    <qemu:arg value="ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off" />
  </qemu:commandline>
</domain>
"""


def test_a_machine_without_a_guest_system() -> None:
    assert domain_xml(server(), LibvirtOptions(disks_max=1), host="cmp1") == DOMAIN


def test_a_machine_with_a_guest_system_boots_it_has_a_console_and_lets_the_guest_eject() -> None:
    guest = GuestSystem("/k", "/i", "quiet")
    tree = ET.fromstring(domain_xml(server(), LibvirtOptions(guest=guest, virt_type="kvm", memory_mib_max=128), host="cmp1"))
    assert [tree.findtext(f"os/{part}") for part in ("kernel", "initrd", "cmdline")] == ["/k", "/i", "quiet"]
    assert (tree.get("type"), tree.find("cpu").get("mode")) == ("kvm", "host-passthrough")  # type: ignore[union-attr]
    assert tree.findtext("memory") == "128"
    assert tree.find("devices/serial") is not None
    assert not any(child.tag.endswith("commandline") for child in tree)


def test_a_machine_is_its_compute_hosts() -> None:
    assert is_of_host(DOMAIN, "cmp1")
    assert not is_of_host(DOMAIN, "cmp2")
    assert not is_of_host("<domain><name>an operator's own</name></domain>", "cmp1")


def test_volumes_are_read_off_a_live_machines_xml_and_other_disks_are_not_volumes() -> None:
    disks = f"<disk><alias name='virtio-disk0'/><target dev='vda'/></disk>{BLOCK}"
    found = parse_disks(f"<domain><devices>{disks}</devices></domain>")
    assert [(disk.volume_id, disk.mountpoint, disk.alias) for disk in found.values()] == [(VOLUME, "/dev/vdb", f"ua-{VOLUME}")]


def test_more_root_ports_than_there_are_slots_are_a_misconfiguration() -> None:
    with pytest.raises(Misconfigured):
        LibvirtOptions(disks_max=25)
