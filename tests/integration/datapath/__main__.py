"""make datapath: the proof in the guest at length, for each backend with each hypervisor."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.integration.datapath.backends import BACKENDS
from tests.integration.datapath.hosts import HYPERVISORS
from tests.integration.datapath.run import prove
from tests.support.guests import guest_missing


def main() -> int:
    """The status of the process: 0 when every round of every combination holds."""
    parser = argparse.ArgumentParser(prog="tests.integration.datapath", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--backend", action="append", choices=sorted(BACKENDS), help="default: all")
    parser.add_argument("--hypervisor", action="append", choices=sorted(HYPERVISORS), help="default: all")
    chosen = parser.parse_args()
    if missing := guest_missing():
        print(f"error: the guest is missing: {missing}", file=sys.stderr)
        return 1
    for backend in chosen.backend or BACKENDS:
        for hypervisor in chosen.hypervisor or HYPERVISORS:
            print(f"{backend} with {hypervisor}, {chosen.rounds} rounds", flush=True)
            begun = monotonic()
            with tempfile.TemporaryDirectory(prefix="datapath-") as folder:
                asyncio.run(
                    prove(
                        Path(folder),
                        backend=backend,
                        hypervisor=hypervisor,
                        rounds=chosen.rounds,
                        tell=lambda line: print(f"  {line}", flush=True),
                    )
                )
            print(f"{backend} with {hypervisor}: whole after {chosen.rounds} rounds, {monotonic() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
