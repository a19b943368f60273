"""Values of AMQP's domains, for hypothesis."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from common.amqp.spec import Field, MethodSpec

names = st.text(max_size=40).filter(lambda text: len(text.encode()) <= 255)
times = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
decimals = st.builds(lambda number, places: Decimal(number).scaleb(-places), st.integers(-(2**31), 2**31 - 1), st.integers(0, 20))
words = st.text("abcxyzABC019-_.:", min_size=1, max_size=40)
"""Names that pamqp lets pass; it writes none that are empty."""
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | times
    | decimals
)


def _nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=10
    )


values = _nested(scalars)
their_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | st.text(max_size=20)
    | times
    | decimals
)
"""What pamqp can write: no bytes, and of floats only the short ones."""
their_tables = st.dictionaries(words, _nested(their_scalars), max_size=5)
tables = st.dictionaries(names, values, max_size=5)
DOMAINS: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "shortstr": names,
    "longstr": st.text(max_size=60).map(str.encode),
    "table": tables,
    "timestamp": times,
}


THEIR_DOMAINS = {**DOMAINS, "longlong": st.integers(0, 2**63 - 1), "shortstr": words, "table": their_tables}


def their_arguments(spec: MethodSpec) -> st.SearchStrategy[dict[str, Any]]:
    """What pamqp takes; its reserved arguments have to be its own defaults."""
    return st.fixed_dictionaries({each.name: THEIR_DOMAINS[each.domain] for each in spec.fields if "reserved" not in each.name})


def arguments(spec: MethodSpec) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({each.name: DOMAINS[each.domain] for each in spec.fields})


def some(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """Properties that pamqp takes."""
    return st.fixed_dictionaries({}, optional={each.name: THEIR_DOMAINS[each.domain] for each in fields})
