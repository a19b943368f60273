"""A line of migrations, as a service names its own."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Branch:
    """Its label, the folder of its revision files, and the newest of them, for which Alembic need not be asked."""

    label: str
    folder: Path
    head: str
