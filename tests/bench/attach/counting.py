"""What an attach and a detach cost the database: statements and transactions, counted where SQLAlchemy hands them to the driver."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Inside, every engine of this process is counted: reads, writes, transactions."""
    counts: Counter[str] = Counter()

    def on_statement(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        word = statement.split(maxsplit=1)[0].upper()
        if word == "SELECT":
            counts["reads"] += 1
        elif word in {"INSERT", "UPDATE", "DELETE"}:
            counts["writes"] += 1

    def on_commit(_conn: Any) -> None:
        counts["transactions"] += 1

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "commit", on_commit)
    try:
        yield counts
    finally:
        event.remove(Engine, "before_cursor_execute", on_statement)
        event.remove(Engine, "commit", on_commit)
