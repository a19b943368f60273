"""The flavors that every OpenStack installation used to come with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flavor:
    """Sizes of a server."""

    name: str
    vcpus: int
    memory_mb: int
    root_gb: int


FLAVORS = {
    flavor.name: flavor
    for flavor in (
        Flavor("m1.nano", 1, 64, 0),
        Flavor("m1.tiny", 1, 512, 1),
        Flavor("m1.small", 1, 2048, 20),
        Flavor("m1.medium", 2, 4096, 40),
        Flavor("m1.large", 4, 8192, 80),
        Flavor("m1.xlarge", 8, 16384, 160),
    )
}
