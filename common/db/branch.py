"""A line of migrations, as a service names its own. Alembic itself is loaded only where revisions are looked at."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Branch:
    """Its label, and the folder of its revision files."""

    label: str
    folder: Path
