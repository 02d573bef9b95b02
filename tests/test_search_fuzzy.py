"""Typing errors: how far two names are apart, and that the near ones are found in an index."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_oracle import Playground

from mirror.search import search
from mirror.search.fuzzy import distance
from mirror.store.index.settle import rebuild

WORDS = st.text("abc-", max_size=9)


def plain_distance(one: str, other: str) -> int:
    """Optimal string alignment, cell by cell."""
    cost = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            cost[i, j] = min(
                cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + (one[i - 1] != other[j - 1])
            )
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                cost[i, j] = min(cost[i, j], cost[i - 2, j - 2] + 1)
    return cost[len(one), len(other)]


@given(WORDS, WORDS, st.integers(1, 2))
def test_errors_are_counted_as_cell_by_cell(one: str, other: str, most: int) -> None:
    """Up to as many as matter."""
    assert distance(one, other, most) == min(plain_distance(one, other), most + 1)


def mistyped(name: str, draw: random.Random) -> str:
    """One error: a letter missing, added, mistaken, or swapped with the next."""
    at = draw.randrange(len(name) - 1)
    letter = draw.choice("abcdefghijklmnopqrstuvwxyz0123456789")
    return draw.choice(
        (
            name[:at] + name[at + 1 :],
            name[:at] + letter + name[at:],
            name[:at] + letter + name[at + 1 :],
            name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        )
    )


@pytest.mark.parametrize("errors", [1, 2])
def test_hardly_any_name_is_missed_for_its_errors(tmp_path: Path, errors: int) -> None:
    """Of one error next to none, of two few, in an index that most beginnings are common in."""
    draw = random.Random(errors)
    stems = ["".join(draw.choices("aeioudfgklmnprst", k=4)) for _ in range(60)]
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        names = [f"{draw.choice(stems)}-{draw.choice(stems)}{draw.randrange(10)}" for _ in range(900)]
        with mirror.store.transaction() as connection:
            for name in names:
                mirror.add(name, followers_count=draw.randrange(3))
            rebuild(connection, leaf_size=12)
        asked = missed = 0
        for name in names[:300]:
            typed = name
            for _ in range(errors):
                typed = mistyped(typed, draw)
            if search(mirror.connection, typed, fuzzy=False).count:
                continue
            found = search(mirror.connection, typed)
            asked += 1
            missed += not found.fuzzy
            assert all(0 < plain_distance(typed, other) <= errors for other in found.corrected)
        assert asked > 200
        assert missed <= asked * (0.02 if errors == 1 else 0.2)
