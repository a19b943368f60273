"""Which revisions of the schema there are, and which of them a database has."""

from collections.abc import Sequence
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from common.db.branch import Branch

_HERE = Path(__file__).parent / "migrations"


COMMON = Branch("common", _HERE / "versions")


def config(branches: Sequence[Branch]) -> Config:
    """Alembic's settings for common's branch and these, without a file."""
    made = Config()
    made.set_main_option("path_separator", "newline")
    made.set_main_option("script_location", _escaped(_HERE))
    made.set_main_option("version_locations", "\n".join(_escaped(branch.folder) for branch in (COMMON, *branches)))
    return made


def heads(branches: Sequence[Branch]) -> frozenset[str]:
    """The newest revision of common's branch and of each of these."""
    return frozenset(ScriptDirectory.from_config(config(branches)).get_heads())


def revisions_of(conn: Connection) -> frozenset[str]:
    """The revisions that a database has; none for an empty one."""
    return frozenset(MigrationContext.configure(conn).get_current_heads())


def _escaped(path: Path) -> str:
    """Alembic's settings give % a meaning."""
    return str(path).replace("%", "%%")
