"""From the rounds of all libraries to tables: medians with the least and the greatest; pure."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from tests.bench.rpc_peers import flood
from tests.bench.rpc_peers.flood import CALM, FAST, OTHER, PACED, PHASES, SAME, Calls, FloodRound
from tests.bench.rpc_peers.rounds import Figures

FOREIGN_MAX = 0.3
"""More of the machine's time used by others spoils a measurement."""

FloodRounds = Sequence[Mapping[str, FloodRound]]
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


def floods(rounds: FloodRounds) -> str:
    """What a flood of one queue does to calls to others. A ratio is to the calm of the same round."""
    return "\n\n".join((*(_harm(rounds, pace) for pace in (PACED, FAST)), _floods_sizes(rounds)))


def _harm(rounds: FloodRounds, pace: str) -> str:
    lines = [
        f"calls, {pace}; left out where two better rounds are there: more than {flood.FOREIGN_MAX:.0%} foreign CPU",
        f"{'peer':<11} {'flood':<9} {'calls to':<16}" + "".join(f" {head:>18}" for head in _HARM),
    ]
    for peer in dict.fromkeys(peer for measured in rounds for peer in measured):
        for phase in PHASES:
            for place in (SAME, OTHER):
                pairs = _quiet_pairs([measured[peer] for measured in rounds if peer in measured], phase, place, pace)
                cells = (
                    spread([one.per_s for _, one in pairs], 0),
                    spread([one.p50_ms for _, one in pairs], 2),
                    spread([one.p99_ms for _, one in pairs], 1),
                    spread([one.p50_ms / calm.p50_ms for calm, one in pairs], 2),
                    spread([one.p99_ms / calm.p99_ms for calm, one in pairs], 2),
                    spread([one.server for _, one in pairs], 2),
                    spread([one.busy for _, one in pairs], 2),
                    f"{len(pairs)} of {len(rounds)}",
                )
                lines.append(f"{peer:<11} {phase:<9} {place:<16}" + "".join(f" {cell:>18}" for cell in cells))
    return "\n".join(lines)


_HARM = ("calls/s", "p50 ms", "p99 ms", "p50 / calm", "p99 / calm", "server's CPU s/s", "machine busy", "rounds")


def _quiet_pairs(rounds: Sequence[FloodRound], phase: str, place: str, pace: str) -> list[tuple[Calls, Calls]]:
    """In calm and in the phase, where others left the machine alone both times; all of them where that happened less than twice."""
    pairs = [(found.calls[CALM][place][pace], found.calls[phase][place][pace]) for found in rounds]
    quiet_pairs = [pair for pair in pairs if max(one.foreign for one in pair) <= flood.FOREIGN_MAX]
    return quiet_pairs if len(quiet_pairs) >= 2 else pairs


def _floods_sizes(rounds: FloodRounds) -> str:
    lines = [_line("peer", "poured/s", *(f"lie: {phase}" for phase in PHASES[1:]), "MiB: server", "flooder", "caller")]
    for peer in dict.fromkeys(peer for measured in rounds for peer in measured):
        found = [measured[peer] for measured in rounds if peer in measured]
        before, after = found[0].rss_mib[0], found[-1].rss_mib[2]
        highest = [max(one.rss_mib[1][number] for one in found) for number in range(3)]
        memory = [f"{low:.0f}>{most:.0f}>{end:.0f}" for low, most, end in zip(before, highest, after, strict=True)]
        lying = [f"{statistics.median(one.lying[phase] for one in found):.0f}" for phase in PHASES[1:]]
        lines.append(_line(peer, f"{statistics.median(one.poured_per_s for one in found):.0f}", *lying, *memory))
        if errors := sum(one.errors for one in found):
            lines.append(f"  {errors} errors: {next((one.said for one in found if one.said), 'wrong answers')}")
    return "\n".join((*lines, "MiB: before the first round > the most > after the last round"))


def _peers(rounds: Rounds) -> list[str]:
    return list(dict.fromkeys(peer for measured in rounds for peer in sorted(measured, key=_place)))


def _place(peer: str) -> tuple[bool, str]:
    return peer != "ours", peer


def _of(rounds: Rounds, peer: str) -> list[Figures]:
    return [measured[peer] for measured in rounds if peer in measured]


def _line(first: str, *cells: str) -> str:
    width = 22 if len(cells) <= 7 else 13
    return f"{first:<15}" + "".join(f" {cell:>{width}}" for cell in cells)
