"""What a machine boots: a kernel and an initramfs, or nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestSystem:
    """Paths of a kernel and its initramfs, and the kernel's command line."""

    kernel: str
    initrd: str
    cmdline: str = "console=ttyS0 quiet panic=-1"
