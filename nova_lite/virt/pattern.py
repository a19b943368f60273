"""The pattern that a machine writes to its disk and looks for: one byte value over a range."""

from common.base.errors import Invalid

PATTERN_BYTES_MAX = 16 * 1024 * 1024
"""Longest range of one write or look: it is held in memory."""

_SECTOR_BYTES = 512


def check_pattern(pattern: int, *, offset: int, length: int) -> None:
    """Raises Invalid unless pattern is a byte and the range is of whole sectors, 1 to PATTERN_BYTES_MAX bytes long."""
    if not 0 <= pattern <= 255:
        raise Invalid(reason=f"the pattern is {pattern}; wanted: 0 to 255")
    if offset < 0 or offset % _SECTOR_BYTES or length % _SECTOR_BYTES or not 0 < length <= PATTERN_BYTES_MAX:
        reason = f"the range is {length} bytes at {offset}; wanted: multiples of {_SECTOR_BYTES}, 1 to {PATTERN_BYTES_MAX} bytes"
        raise Invalid(reason=reason)
