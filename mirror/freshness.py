"""Where to look next: listing requests go to the workspaces where most changes are likely to be waiting.

A listing costs the same whether it brings news or not, so the question is which workspace to list with the
next request. What is known of each repository is when it was changed last; docs/freshness.md has the argument
from there to the one number that workspaces are ordered by, and what it gains. Pure functions: no clock, no
file, no network.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

GRACE = 900.0
"""Seconds after a change during which the next one is no more likely than at their end."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace: when it was listed last, the ages of its repositories then, what a listing costs.

    `listed` is in seconds of the clock; an age is how many seconds before it a repository was changed last.
    """

    name: str
    listed: float
    ages: Sequence[float]
    cost: float = 1.0


def pressure(ages: Iterable[float], since: float) -> float:
    """Say how much there is to gain by a listing now, `since` seconds after the last one.

    A repository that was changed a seconds before the listing, and whose rate may be of any size, is expected
    to have been changed ln(1 + s/a) times in the s seconds after it. Listings are spread best where this
    number, s times what is expected to be waiting less its integral, is alike for all workspaces.
    """
    return sum(since - known * math.log1p(since / known) for known in (max(0.0, age) + GRACE for age in ages))


def due(watched: Sequence[Watched], now: float, *, shortest: float, room: float) -> list[str]:
    """Name the workspaces to list now, the most pressing first, as many as `room` has requests for.

    None that was listed less than `shortest` seconds ago is among them.
    """
    if room < min((one.cost for one in watched), default=room):
        return []
    ripe = [one for one in watched if now - one.listed >= shortest]
    pressing = sorted(ripe, key=lambda one: (-pressure(one.ages, now - one.listed) / one.cost, one.name))
    chosen = list[str]()
    for one in pressing:
        if one.cost > room:
            break
        room -= one.cost
        chosen.append(one.name)
    return chosen
