"""Typing errors: near names are found by the index, fewest errors first, whole or as words of a name."""

import random
from pathlib import Path

import pytest
from search_oracle import Playground

from mirror.search import search
from mirror.search.index.backlog import rebuild_index, update_after_page


def plain_distance(one: str, other: str) -> int:
    """Return the optimal string alignment distance, computed cell by cell."""
    cost = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            cost[i, j] = min(
                cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + (one[i - 1] != other[j - 1])
            )
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                cost[i, j] = min(cost[i, j], cost[i - 2, j - 2] + 1)
    return cost[len(one), len(other)]


def mistyped(name: str, draw: random.Random) -> str:
    """Return a text with one error: a letter missing, added, replaced, or swapped with the next."""
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
def test_almost_every_typing_error_is_corrected(tmp_path: Path, errors: int) -> None:
    """Few names are missed, in an index where most beginnings are common."""
    draw = random.Random(errors)
    stems = ["".join(draw.choices("aeioudfgklmnprst", k=4)) for _ in range(60)]
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        names = [f"{draw.choice(stems)}-{draw.choice(stems)}{draw.randrange(10)}" for _ in range(900)]
        with mirror.store.transaction() as connection:
            for name in names:
                mirror.add(name, followers_count=draw.randrange(3))
            rebuild_index(connection, leaf_size=12)
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


@pytest.mark.parametrize("visible_private", [True, False])
def test_names_that_wait_for_the_index_are_meant_too(tmp_path: Path, *, visible_private: bool) -> None:
    """As soon as a page has them; private ones only for those who may see them."""
    draw = random.Random(3)
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        with mirror.store.transaction() as connection:
            for number in range(300):
                mirror.add(f"{draw.choice(('alpha', 'beta', 'gamma'))}-{number}")
            rebuild_index(connection, leaf_size=12)
        with mirror.store.transaction() as connection:
            mirror.add("zebrafinch")
            mirror.change(7, name="kingfisher", slug="kingfisher")
            mirror.add("nightingale", is_private=1)
            update_after_page(connection)
        for typed, meant in (("zebrafnch", "zebrafinch"), ("kingfihser", "kingfisher")):
            assert search(mirror.connection, typed, visible_private=visible_private).corrected == (meant,)
        found = search(mirror.connection, "nightigale", visible_private=visible_private)
        assert found.corrected == (("nightingale",) if visible_private else ())


def test_hidden_names_that_wait_do_not_take_the_place_of_others(tmp_path: Path) -> None:
    """However many wait: changed ones, and new ones."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store, mirror.store.transaction() as connection:
        for number in range(60):
            mirror.add(f"some-{number}", is_private=number < 50)
        rebuild_index(connection)
        for row_id in range(1, 51):
            mirror.change(row_id, name=f"changed-{row_id}", slug=f"changed-{row_id}")
        mirror.change(60, name="kingfisher", slug="kingfisher")
        for number in range(50):
            mirror.add(f"new-{number}", is_private=1)
        mirror.add("zebrafinch")
        for typed, meant in (("zebrafnch", "zebrafinch"), ("kingfihser", "kingfisher")):
            assert search(connection, typed, visible_private=False).corrected == (meant,)


def test_a_name_of_few_repositories_of_an_owner_is_meant_although_others_use_it(tmp_path: Path) -> None:
    """The lists of the index have only the most popular ones of a common name."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store, mirror.store.transaction() as connection:
        for number in range(300):
            mirror.add("django", followers_count=1 + number, owner_id=2)
        mirror.add("django", owner_id=1)
        rebuild_index(connection, leaf_size=12)
        found = search(connection, "ann/djagno")
        assert (found.corrected, found.ids) == (("django",), [301])


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("typed", "meant", "count"),
    [
        ("djagno", "django", 3),
        ("djano", "django", 3),
        ("scirpts", "scripts", 1),
        ("spring_bto", "spring_bot", 1),
        ("chat.sevrer", "chat.server", 1),
        ("plian", "plain", 2),  # the name itself, before words of more popular ones that are as near
        ("spass-mass-fulss", "spass-mass-fluss", 1),  # its name has fewer letters than what it is compared as
        ("djagno-xxxx", None, 0),
        ("qqqqqq", None, 0),
    ],
)
def test_words_within_a_name_are_corrected(
    tmp_path: Path, typed: str, meant: str | None, count: int, *, indexed: bool
) -> None:
    """The correction has as many words as were typed."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        for name in ("django-scripts", "my-django.chat", "Django CMS", "old_spring_bot", "a.chat.server"):
            mirror.add(name, followers_count=5)
        mirror.add("plain")
        mirror.add("Spaß-Maß-Fluß")
        mirror.add("some-plains-plain", followers_count=9)
        if indexed:
            mirror.store.rebuild_search_index()
        found = search(mirror.connection, typed)
        assert (found.corrected, found.count) == ((meant,) if meant else (), count)
