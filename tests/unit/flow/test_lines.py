"""Lines by subject."""

from common.flow.lines import Lines


def test_places_are_reached_in_the_order_of_joining_each_line_by_itself() -> None:
    lines = Lines()
    first, second, third, other = (lines.join(key) for key in ("a", "a", "a", "b"))
    assert [place.reached.is_set() for place in (first, second, third, other)] == [True, False, False, True]
    first.leave()
    assert [place.reached.is_set() for place in (second, third)] == [True, False]


def test_who_leaves_in_the_middle_lets_nobody_pass_the_first() -> None:
    lines = Lines()
    first, second, third = (lines.join("a") for _ in range(3))
    second.leave()
    assert not third.reached.is_set()
    first.leave()
    assert third.reached.is_set()


def test_leaving_twice_is_leaving_once() -> None:
    lines = Lines()
    first, second, third = (lines.join("a") for _ in range(3))
    first.leave()
    first.leave()
    assert second.reached.is_set()
    assert not third.reached.is_set()


def test_a_line_that_nobody_stands_in_takes_no_memory() -> None:
    lines = Lines()
    for place in [lines.join("a"), lines.join("a")]:
        place.leave()
        place.leave()
    assert lines._lines == {}
