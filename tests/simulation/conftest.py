"""Cases run without logs, and without pauses for garbage: these would cost more than the cases."""

import gc
import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.workers import quiet


@pytest.fixture
def silent() -> Iterator[None]:
    """Nobody logs in this test; garbage is collected behind it."""
    kept = structlog.get_config()
    quiet()
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    structlog.configure(**kept)
    logging.disable(logging.NOTSET)
