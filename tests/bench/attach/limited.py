"""Processes that are held to a share of a core each, by the kernel's CPU bandwidth control (sched-bwc, cgroup-v2: cpu.max).

A machine with few cores is full before a second process of a kind can show what it adds. Held to a tenth of a core each, several can.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_NAME = "lite-bench"


class NoLimits(RuntimeError):
    """Processes cannot be held to a share of a core here."""


@contextmanager
def held(pids: Sequence[int], share: float) -> Iterator[None]:
    """Inside, each of these processes gets at most `share` of a core (0.1: a tenth). Raises NoLimits."""
    root, groups = _root(), []
    try:
        for pid in pids:
            group = root / f"{_NAME}-{pid}"
            group.mkdir(exist_ok=True)  # of a run that was killed
            groups.append(group)
            _limit(group, int(share * _PERIOD_US))
            (group / "cgroup.procs").write_text(str(pid))
    except OSError as exc:
        _release(root, groups, pids)
        raise NoLimits(
            f"processes cannot be held to a share of a core: {exc}; wanted: root, and the cgroup controller cpu"
        ) from exc
    try:
        yield
    finally:
        _release(root, groups, pids)


def _root() -> Path:
    return _V1 if (_V1 / "cgroup.procs").exists() else _V2


def _limit(group: Path, quota_us: int) -> None:
    if group.parent == _V1:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")


def _release(root: Path, groups: Sequence[Path], pids: Sequence[int]) -> None:
    for group, pid in zip(groups, pids, strict=False):
        with suppress(OSError):  # it has ended
            (root / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            group.rmdir()
