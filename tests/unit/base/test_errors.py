"""Faults: their words, fields, and copies."""

import importlib
import pickle
import pkgutil
import string

import pytest

import cinder_lite
import common
import nova_lite
from common.base.errors import Broken, Conflict, Fault, Invalid, NotFound, Timeout, known_faults


class Odd(Fault):
    """Two lines of
    {one} thing.

    This part is for readers of the code.
    """

    wire = ("some.module", "Odd")


def test_the_message_is_the_docstring_s_first_paragraph_filled_with_the_fields() -> None:
    assert str(Odd(one=1)) == "Two lines of 1 thing."
    assert str(Conflict(kind="Volume", name="v", found="error", expected="available")).startswith("Volume v is in state error")
    assert str(Odd("as it is {one}", one=1)) == "as it is {one}"


@pytest.mark.parametrize(
    ("fault", "said"), [(NotFound(kind="Volume"), "<name not given>"), (Timeout(what="x"), "<timeout_s not given>")]
)
def test_a_field_that_was_forgotten_is_named_and_hides_no_error(fault: Fault, said: str) -> None:
    assert said in str(fault)


def test_fields_are_attributes_and_others_are_not() -> None:
    assert Invalid(reason="x").reason == "x"
    with pytest.raises(AttributeError, match="Invalid has no field 'size'"):
        _ = Invalid(reason="x").size


def test_a_pickled_fault_keeps_class_message_and_fields() -> None:
    fault = Timeout(what="tgtadm", timeout_s=3)
    copy = pickle.loads(pickle.dumps(fault))
    assert (type(copy), str(copy), copy.fields) == (Timeout, str(fault), fault.fields)


def test_a_rebuilt_fault_has_the_peer_s_words_and_only_fields_that_can_be_names() -> None:
    found = NotFound.rebuilt("word for {word}", {"name": "v", "self": 1, "message": 2, "a b": 3})
    assert (str(found), found.is_remote) == ("word for {word}", True)
    assert found.fields == {"name": "v", "self": 1, "message": 2}
    assert not NotFound(kind="x", name="y").is_remote


def test_the_identity_on_the_wire_is_the_class_s_own_unless_it_says_another() -> None:
    assert Odd.identity() == ("some.module", "Odd")
    assert Broken.identity() == ("common.base.errors", "Broken")


def test_known_faults_begin_with_the_root_and_reach_every_depth() -> None:
    found = list(known_faults())
    assert found[0] is Fault
    assert {Invalid, NotFound, Odd} <= set(found)
    assert Broken not in set(known_faults(Invalid))


def test_every_fault_of_the_project_has_a_template_that_any_fields_fill() -> None:
    for package in (common, cinder_lite, nova_lite):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = [fault for fault in known_faults() if fault.__module__.split(".")[0] in {"common", "cinder_lite", "nova_lite"}]
    assert len(ours) > 30
    for fault in ours:
        assert "__doc__" in vars(fault), f"{fault.__name__} inherits its words"
        names = [name for _, name, _, _ in string.Formatter().parse(fault.__doc__ or "") if name is not None]
        assert all(name.isidentifier() for name in names), fault
        assert str(fault()), fault
        assert "not given" not in str(fault(**dict.fromkeys(names, 1))), fault
