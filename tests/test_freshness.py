"""Where to look next: budgets are kept, busy workspaces come first, and nothing is forgotten."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.freshness import Watched, change_rate, due, intervals

DAY = 86_400.0
RATES = st.lists(st.floats(1e-9, 1e-1), min_size=1, max_size=60)


def watched(*rates: float, listed: float = 0.0, cost: float = 1.0) -> list[Watched]:
    """Workspaces of these rates."""
    return [Watched(name=f"w{i}", listed=listed, rate=rate, cost=cost) for i, rate in enumerate(rates)]


def spent(ones: list[Watched], seconds: list[float]) -> float:
    """Requests an hour that intervals cost."""
    return sum(one.cost * 3600 / each for one, each in zip(ones, seconds, strict=True))


@given(RATES, st.floats(1, 2000))
def test_the_budget_is_never_exceeded(rates: list[float], per_hour: float) -> None:
    """Whatever the rates, and however small it is."""
    ones = watched(*rates)
    assert spent(ones, intervals(ones, per_hour, shortest=60, longest=DAY)) <= per_hour * 1.001


@given(RATES, st.floats(1, 2000))
def test_whoever_changes_more_is_never_looked_at_less(rates: list[float], per_hour: float) -> None:
    """Intervals fall as rates rise."""
    ones = watched(*sorted(rates))
    seconds = intervals(ones, per_hour, shortest=60, longest=DAY)
    assert all(a >= b - 1e-6 for a, b in pairwise(seconds))


def test_intervals_go_with_the_square_root_of_rate_and_cost() -> None:
    """Four times the changes, half the interval; four times the cost, double."""
    ones = [
        Watched(name="a", listed=0, rate=0.0004),
        Watched(name="b", listed=0, rate=0.0001),
        Watched(name="c", listed=0, rate=0.0004, cost=4),
    ]
    a, b, c = intervals(ones, 30, shortest=1, longest=DAY)
    assert b / a == pytest.approx(2, rel=1e-6)
    assert c / a == pytest.approx(2, rel=1e-6)
    assert spent(ones, [a, b, c]) == pytest.approx(30, rel=1e-6)


@given(st.lists(st.floats(1e-7, 1e-2), min_size=2, max_size=12), st.integers(0, 11), st.integers(0, 11))
def test_no_exchange_of_looks_makes_it_fresher(rates: list[float], one: int, other: int) -> None:
    """Moving a little of the budget from any workspace to any other makes the changes wait longer."""
    ones = watched(*rates)
    seconds = intervals(ones, 100, shortest=1e-3, longest=1e9)
    looks = [1 / each for each in seconds]
    i, j = one % len(rates), other % len(rates)
    moved = list(looks)
    step = 0.01 * min(looks[i], looks[j])
    moved[i] += step
    moved[j] -= step
    waits = [sum(rate / look / 2 for rate, look in zip(rates, each, strict=True)) for each in (looks, moved)]
    assert waits[0] <= waits[1] * (1 + 1e-6)


def test_bounds_are_kept() -> None:
    """Nobody is asked without a pause, nobody is forgotten; what that frees goes to the others."""
    ones = watched(10.0, 1e-4, 1e-12)
    busy, some, quiet = intervals(ones, 62, shortest=60, longest=DAY)
    assert busy == 60
    assert quiet == DAY
    assert some == pytest.approx(3600 / (62 - 60 - 3600 / DAY), rel=1e-3)


def test_a_budget_too_small_for_all_stretches_the_longest() -> None:
    """Five hundred workspaces, ten requests an hour: half for the busy one, 100 hours apart for others."""
    ones = watched(*[1e-9] * 499, 10.0)
    *quiet, busy = intervals(ones, 10, shortest=60, longest=DAY)
    assert quiet == pytest.approx([100 * 3600] * 499)
    assert spent(ones, [*quiet, busy]) == pytest.approx(10, rel=1e-3)


def test_a_recent_change_expects_another() -> None:
    """A push just now outweighs many repositories that were left alone for a year."""
    assert change_rate([10]) > change_rate([365 * DAY] * 100)
    assert change_rate([]) == 0
    assert change_rate([-5]) == change_rate([0])
    assert math.isfinite(change_rate([0]))


def test_the_most_overdue_come_first_and_only_as_many_as_there_is_room_for() -> None:
    """Measured by their own intervals, not by the clock alone."""
    ones = watched(1e-2, 1e-4, 1e-4)
    assert due(ones, 10, 60, shortest=60, longest=DAY, room=9) == []
    assert due(ones, 7200, 60, shortest=60, longest=DAY, room=9)[0] == "w0"
    assert len(due(ones, DAY, 60, shortest=60, longest=DAY, room=2)) == 2
