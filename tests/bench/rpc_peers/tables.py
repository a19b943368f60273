"""From the rounds of all libraries to tables: medians with the least and the greatest; pure."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from tests.bench.rpc_peers.rounds import Figures, Flood

FOREIGN_MAX = 0.3
"""More of the machine's time used by others spoils a measurement."""

Rounds = Sequence[Mapping[str, Figures]]
"""Round by round: what was measured of each library in it."""


def tables(rounds: Rounds, widths: Sequence[int]) -> str:
    """Ratios first: both sides of a ratio were measured in the same round, minutes apart at most."""
    rounds, word = quiet(rounds)
    return "\n".join(
        (word, _ratios(rounds), _calls(rounds, widths), _latencies(rounds, widths), _costs(rounds), _faults(rounds))
    ).strip()


def quiet(rounds: Rounds) -> tuple[Rounds, str]:
    """The rounds without the measurements that a busy machine spoiled, where a library has two better ones, and a word on that.

    A library of many threads gets more of a busy machine than one of a single thread: such a round compares schedulers.
    """
    kept: list[dict[str, Figures]] = [dict(measured) for measured in rounds]
    dropped = []
    for peer in _peers(rounds):
        found = _of(rounds, peer)
        loud = sum(one.foreign > FOREIGN_MAX for one in found)
        if loud and len(found) - loud >= 2:
            kept = [
                {name: one for name, one in measured.items() if name != peer or one.foreign <= FOREIGN_MAX} for measured in kept
            ]
            dropped.append(f"{loud} of {len(found)} of {peer}")
        elif loud:
            dropped.append(f"none of {peer}, though {loud} of {len(found)} should be: the machine was too busy")
    return kept, f"left out for more than {FOREIGN_MAX:.0%} foreign CPU: {'; '.join(dropped)}\n" if dropped else ""


def spread(values: Sequence[float], digits: int) -> str:
    """`median [least-greatest]`; one value alone stands alone."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def ratios(rounds: Rounds, peer: str, base: str, value: Callable[[Figures], float | None]) -> list[float]:
    """One ratio for each round in which both were measured."""
    found = []
    for measured in rounds:
        if peer in measured and base in measured:
            over, under = value(measured[peer]), value(measured[base])
            if over is not None and under:
                found.append(over / under)
    return found


def _ratios(rounds: Rounds) -> str:
    lines = ["ratios in the same round: calls/s at 128 in flight, casts handled/s, CPU s per 1,000 calls (less is better)"]
    lines.append(_line("peer", *(f"{what} x{base}" for base in ("oslo", "aiormq") for what in ("calls", "casts", "CPU"))))
    measures: tuple[Callable[[Figures], float | None], ...] = (
        lambda found: found.per_s.get(128),
        lambda found: found.handled_per_s,
        lambda found: found.cpu_s_per_1000,
    )
    for peer in _peers(rounds):
        cells = [spread(ratios(rounds, peer, base, value), 2) for base in ("oslo", "aiormq_raw") for value in measures]
        lines.append(_line(peer, *cells))
    return "\n".join((*lines, ""))


def _calls(rounds: Rounds, widths: Sequence[int]) -> str:
    lines = [_line("peer", *(f"calls/s @{width}" for width in widths), "casts published/s", "casts handled/s")]
    for peer in _peers(rounds):
        found = _of(rounds, peer)
        rates = [spread([one.per_s[width] for one in found if width in one.per_s], 0) for width in widths]
        casts = spread([one.published_per_s for one in found], 0), spread([one.handled_per_s for one in found], 0)
        lines.append(_line(peer, *rates, *casts))
    return "\n".join((*lines, ""))


def _latencies(rounds: Rounds, widths: Sequence[int]) -> str:
    lines = [_line("peer", *(f"{name} ms @{width}" for width in widths for name in ("p50", "p99")))]
    for peer in _peers(rounds):
        found = _of(rounds, peer)
        cells = []
        for width in widths:
            cells.append(spread([one.p50_ms[width] for one in found if width in one.p50_ms], 2))
            cells.append(spread([one.p99_ms[width] for one in found if width in one.p99_ms], 1))
        lines.append(_line(peer, *cells))
    return "\n".join((*lines, ""))


def _costs(rounds: Rounds) -> str:
    lines = [
        _line("peer", "CPU s/1,000 calls", "broker's", "RSS client MiB", "RSS server MiB", "first call s", "foreign CPU share")
    ]
    for peer in _peers(rounds):
        found = _of(rounds, peer)
        lines.append(
            _line(
                peer,
                spread([one.cpu_s_per_1000 for one in found], 3),
                spread([one.broker_cpu_s_per_1000 for one in found], 3),
                spread([one.client_rss_mib for one in found], 1),
                spread([one.server_rss_mib for one in found], 1),
                spread([one.first_call_s for one in found], 2),
                spread([one.foreign for one in found], 2),
            )
        )
    return "\n".join((*lines, ""))


def _faults(rounds: Rounds) -> str:
    """Answers that were wrong and calls that failed; nothing when there were none."""
    lines = []
    for peer in _peers(rounds):
        found = _of(rounds, peer)
        wrong, errors = sum(one.wrong for one in found), sum(one.errors for one in found)
        if wrong or errors:
            said = next((one.said for one in found if one.said), "")
            lines.append(f"{peer}: {wrong} wrong answers, {errors} errors {said}")
    return "\n".join(lines)


def floods(found: Mapping[str, Flood]) -> str:
    """What a flood of one queue does to calls to another."""
    head = ("casts", "casts/s", "calls/s calm", "flooded", "p50 ms calm", "flooded", "p99 ms calm", "flooded")
    lines = [_line("peer", *head, "server MiB", "flooder MiB", "caller MiB")]
    for peer, one in found.items():
        pairs = [f"{before[place]:.{digits}f}" for place, digits in ((0, 0), (1, 2), (2, 1)) for before in (one.calm, one.flooded)]
        memory = [f"{low:.0f} -> {high:.0f}" for low, high in (one.server_rss_mib, one.flooder_rss_mib, one.caller_rss_mib)]
        lines.append(_line(peer, str(one.published), f"{one.published_per_s:.0f}", *pairs, *memory))
        if one.errors:
            lines.append(f"  {one.errors} errors: {one.said}")
    return "\n".join(lines)


def _peers(rounds: Rounds) -> list[str]:
    return list(dict.fromkeys(peer for measured in rounds for peer in sorted(measured, key=_place)))


def _place(peer: str) -> tuple[bool, str]:
    return peer != "ours", peer


def _of(rounds: Rounds, peer: str) -> list[Figures]:
    return [measured[peer] for measured in rounds if peer in measured]


def _line(first: str, *cells: str) -> str:
    width = 22 if len(cells) <= 7 else 13
    return f"{first:<15}" + "".join(f" {cell:>{width}}" for cell in cells)
