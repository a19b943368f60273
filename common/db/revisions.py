"""Which revisions of the schema there are, and which of them a database has. Without Alembic, a fifth of what a service loads."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, String, column, inspect, select, table

from common.db.branch import Branch

MIGRATIONS = Path(__file__).parent / "migrations"
COMMON = Branch("common", MIGRATIONS / "versions", head="common_0004")
_STORED = select(column("version_num", String)).select_from(table("alembic_version"))


def heads(branches: Sequence[Branch]) -> frozenset[str]:
    """The newest revision of common's branch and of each of these."""
    return frozenset(branch.head for branch in (COMMON, *branches))


def revisions_of(conn: Connection) -> frozenset[str]:
    """The revisions that a database has; none for an empty one."""
    if not inspect(conn).has_table("alembic_version"):
        return frozenset()
    return frozenset(conn.execute(_STORED).scalars())
