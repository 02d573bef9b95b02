"""Which workspaces to list next: the most urgent first, within the share, and none is forgotten."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.background.freshness import GRACE, WatchedWorkspace, due, pressure

DAY = 86_400.0
AGES = st.lists(st.floats(0, 1e8), min_size=1, max_size=12)


def watched(*ages: list[float], listed: float = 0.0, cost: float = 1.0) -> list[WatchedWorkspace]:
    """Workspaces whose repositories have these ages."""
    return [
        WatchedWorkspace(name=f"w{i}", listed=listed, ages=each, cost=cost) for i, each in enumerate(ages)
    ]


def waiting(ages: list[float], since: float) -> float:
    """How many changes are expected to wait."""
    return sum(math.log1p(since / (age + GRACE)) for age in ages)


def waited(ages: list[float], since: float) -> float:
    """How long they are expected to have waited in total: the integral of `waiting`."""
    known = [age + GRACE for age in ages]
    return sum((each + since) * math.log1p(since / each) - since for each in known)


@given(AGES, st.floats(0, 1e7))
def test_the_formula_is_the_documented_one(ages: list[float], since: float) -> None:
    """The time multiplied by the expected waiting changes, minus their integral."""
    expected = since * waiting(ages, since) - waited(ages, since)
    assert pressure(ages, since) == pytest.approx(expected, rel=1e-6, abs=1e-3 * max(1.0, since))


@given(AGES, st.lists(st.floats(0, 1e7), min_size=2, max_size=8))
def test_urgency_grows_with_time_without_bound(ages: list[float], times: list[float]) -> None:
    """So every workspace is listed eventually."""
    found = [pressure(ages, since) for since in sorted(times)]
    assert all(a <= b + 1e-6 for a, b in pairwise(found))
    assert pressure(ages, 1e12) > 1e10


@given(st.floats(0, 1e7), st.lists(st.floats(0, 1e8), min_size=2, max_size=8))
def test_a_recent_change_raises_the_urgency(since: float, ages: list[float]) -> None:
    """A repository without changes for a year hardly counts."""
    found = [pressure([age], since) for age in sorted(ages)]
    assert all(a >= b - 1e-6 for a, b in pairwise(found))
    assert pressure([60], 600) > pressure([365 * DAY] * 100, 600)
    assert pressure([-5], since) == pressure([0], since)
    assert pressure([], since) == 0


def test_the_listing_rate_is_the_square_root_of_the_change_rate() -> None:
    """If ages are long beside the interval, four times the changes halve the interval."""
    assert pressure([100 * DAY] * 4, 600) == pytest.approx(pressure([100 * DAY], 1200), rel=1e-3)


@given(st.lists(AGES, min_size=2, max_size=5), st.floats(1, 1e6), st.integers(0, 4), st.integers(0, 4))
def test_no_other_order_is_fresher(every: list[list[float]], price: float, one: int, other: int) -> None:
    """At equal urgency, moving a listing from one workspace to another costs more than it gains."""
    seconds = [_interval(ages, price) for ages in every]
    i, j = one % len(every), other % len(every)
    looks = [1 / each for each in seconds]
    step = 0.01 * min(looks[i], looks[j])
    moved = list(looks)
    moved[i] += step
    moved[j] -= step
    waits = [
        sum(waited(ages, 1 / look) * look for ages, look in zip(every, each, strict=True))
        for each in (looks, moved)
    ]
    assert waits[0] <= waits[1] * (1 + 1e-6)


def _interval(ages: list[float], price: float) -> float:
    """Find the interval at whose end the urgency has a value."""
    low, high = 0.0, 1e13
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if pressure(ages, middle) < price else (low, middle)
    return high


def test_the_most_urgent_come_first_within_the_share() -> None:
    """Compared with their cost, and not again at once."""
    ones = watched([DAY], [10.0], [100 * DAY])
    assert due(ones, 60, shortest=120, room=9) == []
    assert due(ones, 600, shortest=120, room=9) == ["w1", "w0", "w2"]
    assert due(ones, 600, shortest=120, room=2.5) == ["w1", "w0"]
    assert due(ones, 600, shortest=120, room=0.9) == []
    dear = WatchedWorkspace(name="dear", listed=0, ages=[10.0], cost=1000)
    assert due([*ones, dear], 600, shortest=120, room=2000)[:2] == ["w1", "w0"]
    assert due([], 600, shortest=120, room=9) == []


def test_every_workspace_is_listed_in_the_end() -> None:
    """One without changes for a year, beside three that change each minute, with room for one listing."""
    ages = [[0.0], [0.0], [0.0], [365 * DAY]]
    ones, seen, now = watched(*ages), set[str](), 0.0
    while "w3" not in seen:
        now += 60
        for name in due(ones, now, shortest=120, room=1):
            seen.add(name)
            index = int(name.removeprefix("w"))
            ones[index] = WatchedWorkspace(name=name, listed=now, ages=ages[index])
    assert now < DAY
