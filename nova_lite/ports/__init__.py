"""What the flows need of the outside: a hypervisor, this host's storage connections, and the volume service."""
