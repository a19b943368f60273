"""What each branch of the tree of errors tells its caller: OpenStack's HTTP status, and whether waiting helps."""

import pytest

from common.base.errors import Ambiguous, Broken, Conflict, Fault, Invalid, Misconfigured, NotFound, Timeout, Unavailable

TREE = {
    Fault: (Exception, 500, False),
    Invalid: (Fault, 400, False),
    NotFound: (Invalid, 404, False),
    Conflict: (Invalid, 409, False),
    Ambiguous: (Invalid, 409, False),
    Unavailable: (Fault, 503, True),
    Timeout: (Unavailable, 504, True),
    Broken: (Fault, 500, False),
    Misconfigured: (Broken, 500, False),
}


@pytest.mark.parametrize("fault", TREE, ids=lambda fault: fault.__name__)
def test_a_branch_of_the_tree_has_its_parent_status_and_hope(fault: type[Fault]) -> None:
    assert (fault.__base__, fault.code, fault.retryable) == TREE[fault]
    assert fault("words").args == ("words",)
