"""Hypervisors behind `nova_lite.ports.hypervisor`: QEMU, a simulated one on files, a fake one in memory."""
