"""The window of answers against a plain list."""

from hypothesis import given, strategies as st

from common.wire.callee import Answer, Answers

ids = st.sampled_from([f"u{number}" for number in range(12)])
records = st.lists(st.tuples(ids, st.none() | st.binary(max_size=8)), max_size=60)


@given(records, st.integers(1, 8), st.integers(0, 24))
def test_the_newest_are_remembered_and_their_bodies_as_long_as_they_fit(
    given_records: list[tuple[str, bytes | None]], count: int, bytes_max: int
) -> None:
    answers = Answers(count, bytes_max)
    kept: list[list[object]] = []
    for unique_id, body in given_records:
        answers.record(unique_id, body)
        if unique_id not in [held[0] for held in kept]:
            kept.append([unique_id, body])
        for held in kept:
            if sum(len(other) for _, other in kept if isinstance(other, bytes)) <= bytes_max:
                break
            held[1] = None
        del kept[:-count]
        for number in range(12):
            found = [held for held in kept if held[0] == f"u{number}"]
            assert answers.recall(f"u{number}") == (Answer(found[0][1]) if found else None)  # type: ignore[arg-type]


def test_a_request_without_an_id_is_always_new() -> None:
    answers = Answers(2, 100)
    answers.record(None, b"x")
    assert answers.recall(None) is None
