"""Fuzz the decoders for some minutes: `python -m tests.property.wire.fuzz [--minutes N]`.

With atheris, where it can be installed (the extra `fuzz`), which looks for new branches; else with hypothesis in a loop.
Whatever is found is printed with the command that shows it again: `--target NAME --hex BYTES`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

_INPUT_BYTES_MAX = 4096
_MEMORY_MIB_MAX = 2048
_ONE_INPUT_S_MAX = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.property.wire.fuzz", description="Fuzz the decoders.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--target", help="with --hex: run this target once")
    parser.add_argument("--hex", default="")
    parser.add_argument("--atheris", metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.target is not None:
        return _again(asked.target, bytes.fromhex(asked.hex))
    if asked.atheris is not None:
        return _in_atheris(Path(asked.atheris), int(asked.minutes * 60))
    if find_spec("atheris") is not None:
        return _with_atheris(asked.minutes)
    return _with_hypothesis(asked.minutes)


def _again(target: str, data: bytes) -> int:
    from tests.property.wire.targets import TARGETS  # noqa: PLC0415 - atheris has to import it itself

    TARGETS[target](data)
    sys.stdout.write(f"{target}: nothing happens\n")
    return 0


def _told(target: str, run: Callable[[bytes], None], data: bytes) -> None:
    try:
        run(data)
    except BaseException:
        sys.stdout.write(f"\nFOUND in {target}; to see it again:\n")
        sys.stdout.write(f"    python -m tests.property.wire.fuzz --target {target} --hex {data.hex()}\n\n")
        sys.stdout.flush()
        raise


def _with_atheris(minutes: float) -> int:
    """In a process of its own: libFuzzer ends the one that it runs in."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        words = ["--atheris", folder, "--minutes", str(minutes)]
        done = subprocess.run([sys.executable, "-m", "tests.property.wire.fuzz", *words], check=False)
    sys.stdout.write("atheris found nothing\n" if done.returncode == 0 else f"atheris ended with status {done.returncode}\n")
    return done.returncode


def _in_atheris(folder: Path, seconds: int) -> int:
    import atheris  # noqa: PLC0415 - may not be there

    with atheris.instrument_imports(include=["common"]):
        from tests.property.amqp.fuzzed import AMQP_TARGETS, amqp_seeds  # noqa: PLC0415 - is instrumented by this
        from tests.property.wire.targets import TARGETS, seeds  # noqa: PLC0415

    names = sorted(TARGETS)
    corpus = folder / "corpus"
    corpus.mkdir()
    for first, name in enumerate(names):
        for number, seed in enumerate(amqp_seeds() if name in AMQP_TARGETS else seeds()):
            (corpus / f"{first}-{number}").write_bytes(bytes([first]) + seed)

    def one(data: bytes) -> None:
        """The first byte says which target."""
        name = names[data[0] % len(names)] if data else names[0]
        _told(name, TARGETS[name], data[1:])

    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={_INPUT_BYTES_MAX}",
        f"-rss_limit_mb={_MEMORY_MIB_MAX}",
        f"-timeout={_ONE_INPUT_S_MAX}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
    atheris.Fuzz()
    return 0


def _with_hypothesis(minutes: float) -> int:
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415 - only here

    from tests.property.amqp.fuzzed import AMQP_TARGETS  # noqa: PLC0415
    from tests.property.amqp.test_fuzz import inputs as amqp_inputs  # noqa: PLC0415
    from tests.property.wire.targets import TARGETS  # noqa: PLC0415
    from tests.property.wire.test_fuzz import inputs  # noqa: PLC0415

    until_s = time.monotonic() + minutes * 60
    rounds = 0
    while time.monotonic() < until_s:
        for name, run in TARGETS.items():
            told = partial(_told, name, run)

            @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(data=amqp_inputs if name in AMQP_TARGETS else inputs)
            def one(data: bytes, *, told: Callable[[bytes], None]) -> None:
                told(data)

            one(told=told)
        rounds += 1
    sys.stdout.write(f"hypothesis found nothing in {rounds * 500 * len(TARGETS)} inputs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
