"""Cases run without logs, and without pauses for garbage: these would cost more than the cases."""

import gc
import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.workers import quiet


@pytest.fixture
def silent() -> Iterator[None]:
    """Nobody logs in this test; garbage is collected behind it, without a look at what was there before."""
    kept = structlog.get_config()
    quiet()
    gc.disable()
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()
    gc.enable()
    structlog.configure(**kept)
    logging.disable(logging.NOTSET)
