"""Where to look next: listing requests go to the workspaces where a change is most likely to be waiting.

A listing costs the same whether it brings news or not, so the question is how often to look at each
workspace within so many requests an hour. If changes come at rate r and are looked for every T seconds, they
wait T/2 on average; the sum of all waits, r T / 2 over all workspaces, is least under a fixed number of looks
if each is looked at in proportion to the square root of its rate over its cost. docs/freshness.md has the
argument, and what it gains. Pure functions: no clock, no file, no network.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

GRACE = 900.0
"""Seconds after a change during which the next one is no more likely than at their end."""

_STEPS = 60


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace: when it was listed last (seconds), its changes a second, and what a listing costs."""

    name: str
    listed: float
    rate: float
    cost: float = 1.0


def change_rate(ages: Iterable[float]) -> float:
    """Estimate changes a second from how long ago, in seconds, each repository was changed last.

    Of a repository whose rate may be of any size, a last change a seconds ago says: 1/a is what to expect.
    So one that was pushed to just now is expected to be pushed to again, and ever less so as time goes by;
    sums of this know a busy workspace from a quiet one after a single listing.
    """
    return sum(1 / (max(0.0, age) + GRACE) for age in ages)


def intervals(watched: Sequence[Watched], per_hour: float, *, shortest: float, longest: float) -> list[float]:
    """Return how many seconds apart each workspace is listed, within a budget of requests.

    No interval is shorter than `shortest`. None is longer than `longest`, unless that alone would take more
    than half of the budget: then the longest one is what half of it allows.
    """
    if not watched:
        return []
    per_second = per_hour / 3600
    roots = [math.sqrt(max(one.rate, 1e-12) / one.cost) for one in watched]
    longest = max(longest, 2 * sum(one.cost for one in watched) / per_second)

    def spread(scale: float) -> list[float]:
        return [min(max(scale / root, shortest), longest) for root in roots]

    low, high = 0.0, longest * max(roots)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        spent = sum(one.cost / seconds for one, seconds in zip(watched, spread(middle), strict=True))
        low, high = (middle, high) if spent > per_second else (low, middle)
    return spread(high)


def due(
    watched: Sequence[Watched], now: float, per_hour: float, *, shortest: float, longest: float, room: float
) -> list[str]:
    """Name the workspaces whose time has come, the most overdue first, as many as `room` has requests for."""
    seconds = intervals(watched, per_hour, shortest=shortest, longest=longest)
    overdue = [
        ((now - one.listed) / interval, one.name, one.cost)
        for one, interval in zip(watched, seconds, strict=True)
        if now - one.listed >= interval
    ]
    chosen = list[str]()
    for _, name, cost in sorted(overdue, reverse=True):
        if cost > room:
            break
        room -= cost
        chosen.append(name)
    return chosen
