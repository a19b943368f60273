"""Cases run without logs: these would cost more than the cases."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.workers import quiet


@pytest.fixture
def silent() -> Iterator[None]:
    """Nobody logs in this test."""
    kept = structlog.get_config()
    quiet()
    yield
    structlog.configure(**kept)
    logging.disable(logging.NOTSET)
