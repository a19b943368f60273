"""How the bench of RPC libraries draws its tables."""

from tests.bench.rpc_peers.flood import CALM, FAST, OTHER, PACED, PHASES, SAME, WAITING, Calls, FloodRound
from tests.bench.rpc_peers.rounds import Figures, Spent
from tests.bench.rpc_peers.tables import floods, quiet, ratios, spread, tables
from tests.bench.rpc_peers.work import CALLS, TIMER_S, Order, Tally


def figures(per_s: float) -> Figures:
    return Figures(0.5, per_s={128: per_s}, p50_ms={128: 1.0}, p99_ms={128: 2.0}, cpu_s_per_1000=0.5, handled_per_s=10.0)


def test_a_spread_is_the_median_between_the_least_and_the_greatest() -> None:
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 [1.0-3.0]"
    assert spread([2.0], 0) == "2"
    assert spread([], 0) == "-"


def test_a_ratio_is_taken_within_a_round_and_only_where_both_were_measured() -> None:
    rounds = [{"ours": figures(300), "oslo": figures(100)}, {"ours": figures(900)}, {"ours": figures(50), "oslo": figures(50)}]
    assert ratios(rounds, "ours", "oslo", lambda found: found.per_s.get(128)) == [3.0, 1.0]


def test_the_tables_name_ours_first_and_leave_empty_what_was_not_measured() -> None:
    drawn = tables([{"faststream_rpc": figures(10), "ours": figures(30)}], (128, 1024))
    names = [line.split()[0] for line in drawn.splitlines()[2:4]]
    assert names == ["ours", "faststream_rpc"]
    assert drawn.splitlines()[6].split() == ["ours", "30", "-", "0", "10"]


def loud(per_s: float) -> Figures:
    found = figures(per_s)
    found.foreign = 0.5
    return found


def test_a_measurement_on_a_busy_machine_is_left_out_where_two_better_ones_are_there() -> None:
    rounds = [{"ours": loud(1), "oslo": figures(2)}, {"ours": figures(3), "oslo": loud(4)}, {"ours": figures(5), "oslo": loud(6)}]
    kept, word = quiet(rounds)
    assert [sorted(measured) for measured in kept] == [["oslo"], ["oslo", "ours"], ["oslo", "ours"]]
    assert "1 of 3 of ours; none of oslo, though 2 of 3 should be" in word
    assert word.strip() in tables(rounds, (128,))


def test_errors_and_wrong_answers_are_told() -> None:
    failing = figures(10)
    failing.errors, failing.said = 2, "TimeoutError: x"
    assert "ours: 0 wrong answers, 2 errors TimeoutError: x" in tables([{"ours": failing}], (128,))


def test_what_others_used_of_the_machine_is_its_time_less_ours_and_the_brokers(monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before, after = Spent(1.0, 1.0, 10.0, clock_s=0.0), Spent(2.0, 1.5, 13.5, clock_s=2.0)
    assert before.foreign_until(after) == 0.5


def test_an_answer_after_the_time_is_answered_but_not_done() -> None:
    tally = Tally(Order(CALLS, 1, seconds=0.0))
    tally.note(tally.began_s, is_right=False)
    answer = tally.answer()
    assert (answer.done, answer.answered, answer.wrong) == (0, 1, 1)
    assert tally.next() is None


def test_a_paced_client_begins_as_many_as_the_rate_allows_and_counts_from_when_each_was_due() -> None:
    tally = Tally(Order(CALLS, 1, seconds=1.0, per_s=2.0))
    assert [tally.next(), tally.next(), tally.next()] == [1, 2, None]
    assert tally.due_s(2) == tally.began_s + 0.5
    tally.began_s -= 100.0
    assert tally.started_s(2) == tally.began_s + 0.5 + TIMER_S


def flood_round(*, calm_ms: float, waiting_ms: float, foreign: float = 0.0) -> FloodRound:
    def calls(phase: str) -> dict[str, dict[str, Calls]]:
        one = Calls(200.0, 1.0, waiting_ms if phase == WAITING else calm_ms, server=0.2, busy=0.3, foreign=foreign)
        return {place: {PACED: one, FAST: one} for place in (SAME, OTHER)}

    sizes = ([40.0, 38.0, 37.0], [46.0, 42.0, 37.0], [45.0, 41.0, 37.0])
    return FloodRound({phase: calls(phase) for phase in PHASES}, dict.fromkeys(PHASES, 100_000), 5000.0, sizes)


def test_harm_is_a_ratio_to_the_calm_of_the_same_round_where_others_left_the_machine_alone() -> None:
    rounds = [flood_round(calm_ms=2, waiting_ms=4), flood_round(calm_ms=4, waiting_ms=4)]
    rounds.append(flood_round(calm_ms=1, waiting_ms=100, foreign=0.5))
    drawn = floods([{"ours": one} for one in rounds])
    line = next(line for line in drawn.splitlines() if WAITING in line and SAME in line)
    assert "4.0 [4.0-4.0]" in line
    assert "1.50 [1.00-2.00]" in line
    assert line.endswith(" 2 of 3")
    assert any("40>46>45" in line and "100000" in line for line in drawn.splitlines())
    assert CALM in drawn
