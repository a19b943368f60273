from nova_lite.contract import Instance, VmState
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.qemu_argv import QemuOptions, qemu_argv

UUID = "11111111-2222-4333-8444-555555555555"

GOLDEN = f"""\
qemu-system-x86_64 -name {UUID} -uuid {UUID}
-machine q35 -accel tcg -smp 2 -m 16
-nodefaults -no-user-config -display none -S
-daemonize -pidfile pid -D log -d guest_errors
-qmp unix:qmp,server=on,wait=off
-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
-device pcie-root-port,id=rp1,bus=pcie.0,chassis=1,slot=1
-device pcie-root-port,id=rp2,bus=pcie.0,chassis=2,slot=2
"""


def server(*, memory_mb: int = 512, vcpus: int = 2, name: str = "vm") -> Instance:
    return Instance(uuid=UUID, display_name=name, vm_state=VmState.BUILDING, memory_mb=memory_mb, vcpus=vcpus)


def test_the_argument_vector_of_a_machine_without_a_guest_system() -> None:
    assert list(qemu_argv(server(), QemuOptions(disks_max=2))) == GOLDEN.split()


def test_a_machine_gets_its_flavors_memory_up_to_the_limit() -> None:
    assert memory(server(memory_mb=512), 2048) == "512"
    assert memory(server(memory_mb=4096), 2048) == "2048"
    assert memory(server(memory_mb=0), 16) == "16"


def test_nothing_that_a_user_chose_is_in_the_argument_vector() -> None:
    argv = qemu_argv(server(name="x,server=on -monitor stdio"), QemuOptions())
    assert not any("monitor" in word for word in argv)


def test_a_guest_can_be_given_the_say_on_unplugging() -> None:
    argv = qemu_argv(server(), QemuOptions(unplug_by_guest=True))
    assert "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on" in argv


def memory(instance: Instance, memory_mib_max: int) -> str:
    argv = qemu_argv(instance, QemuOptions(memory_mib_max=memory_mib_max))
    return argv[argv.index("-m") + 1]


def test_a_machine_with_a_guest_system_boots_it_has_a_console_and_lets_the_guest_eject() -> None:
    guest = GuestSystem("/g/vmlinuz", "/g/initrd.gz", "console=ttyS0 quiet")
    argv = qemu_argv(server(), QemuOptions(guest=guest, disks_max=1))
    assert "-S" not in argv
    assert option(argv, "-kernel") == "/g/vmlinuz"
    assert option(argv, "-initrd") == "/g/initrd.gz"
    assert option(argv, "-append") == "console=ttyS0 quiet"
    assert option(argv, "-chardev") == "socket,id=serial,path=serial,server=on,wait=off,logfile=console"
    assert option(argv, "-cpu") == "max"
    assert "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on" in argv
    assert "-incoming" not in argv


def test_a_machine_goes_on_from_a_saved_state_whatever_its_path_is_called() -> None:
    options = QemuOptions(guest=GuestSystem("/k", "/i"), saved_state="/a b/'c'.bin")
    assert option(qemu_argv(server(), options), "-incoming") == """exec:cat '/a b/'"'"'c'"'"'.bin'"""


def test_kvm_gives_the_guest_the_hosts_own_processor() -> None:
    argv = qemu_argv(server(), QemuOptions(guest=GuestSystem("/k", "/i"), accel="kvm"))
    assert (option(argv, "-accel"), option(argv, "-cpu")) == ("kvm", "host")


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]
