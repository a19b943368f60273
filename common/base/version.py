"""RPC versions `major.minor[.revision]` and who may serve whom (oslo.messaging `version_is_compatible`)."""

from functools import lru_cache


def parse_version(text: str) -> tuple[int, int, int]:
    """(major, minor, revision); a missing revision is 0. Raises ValueError unless two or three numbers."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not a version: wanted major.minor or major.minor.revision")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else 0


@lru_cache(maxsize=1024)
def serves(implemented: str, requested: str) -> bool:
    """True when a server of `implemented` may take a message of `requested`: majors equal, the rest not newer."""
    have, want = parse_version(implemented), parse_version(requested)
    return have[0] == want[0] and want[1:] <= have[1:]
