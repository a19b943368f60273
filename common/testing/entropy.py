"""Chance from a seed: `os.urandom`, and with it `secrets` and `uuid.uuid4`, and the module `random`."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int | str) -> Iterator[random.Random]:
    """Inside the block all chance of this process follows from `seed`; the generator in hand is another one, for the test itself.

    Not for two threads at a time.
    """
    source = random.Random(f"urandom {seed}")  # noqa: S311  # the same again is the purpose
    kept, system = random.getstate(), os.urandom
    random.seed(f"random {seed}")
    os.urandom = random._urandom = source.randbytes  # type: ignore[attr-defined]
    try:
        yield random.Random(f"test {seed}")  # noqa: S311
    finally:
        os.urandom = random._urandom = system  # type: ignore[attr-defined]
        random.setstate(kept)
