"""OUTCOMES.md is what its generator writes, and speaks of the cases that the tests run."""

import pytest

from tests.simulation.judged import cases_of
from tests.simulation.scenario import SINGLE
from tests.simulation.table import PAGE, key_of, page, read


def test_the_page_has_the_form_that_its_generator_gives_it() -> None:
    text = PAGE.read_text()
    assert page(read(text)) == text, "python -m tests.simulation --write-table"


@pytest.mark.usefixtures("silent")
def test_the_page_speaks_of_every_boundary_and_fault_that_is_tried() -> None:
    tried = {key_of(case) for case in cases_of(*SINGLE)}
    assert read(PAGE.read_text()).keys() == tried, "python -m tests.simulation --write-table"
