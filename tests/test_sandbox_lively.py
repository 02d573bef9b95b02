"""A sandbox in which people work: by the clock, by a seed, and seen by a mirror."""

from collections import Counter
from pathlib import Path

import pytest
from sync_harness import Clock, crawling

from mirror.sandbox import Lively, World
from mirror.sandbox.lively import MOST_AT_ONCE


class Seconds:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _lived(seconds: float, *, seed: int = 1, per_minute: float = 20, repositories: int = 100) -> list[str]:
    clock, world = Seconds(), World(repositories)
    lively = Lively(world, per_minute=per_minute, seed=seed, clock=clock)
    assert lively.catch_up() == []
    done = list[str]()
    for second in range(10, int(seconds) + 1, 10):
        clock.now = float(second)
        done += [" ".join(map(str, order.values())) for order in lively.catch_up()]
    return done


def test_the_same_seed_makes_the_same_edits() -> None:
    """And another one others."""
    assert _lived(120) == _lived(120)
    assert _lived(120) != _lived(120, seed=2)


def test_the_rate_is_kept_and_everything_happens() -> None:
    """A thousand minutes have about twenty thousand edits, of all kinds."""
    done = _lived(10 * 3600, repositories=1_000)
    assert 10 * 60 * 20 * 0.75 < len(done) < 10 * 60 * 20 * 1.05
    kinds = Counter(line.split()[0] for line in done)
    assert set(kinds) == {
        "push", "force_push", "create_branch", "delete_branch", "create_tag", "edit", "rename", "create",
        "delete", "restore",
    }  # fmt: skip
    assert kinds["push"] > kinds["delete"] * 10


def test_a_long_silence_is_not_made_up_for_as_a_whole() -> None:
    """Whoever comes back after a week waits for no million edits."""
    clock, world = Seconds(), World(50)
    lively = Lively(world, clock=clock)
    clock.now = 7 * 86_400.0
    assert 0 < len(lively.catch_up()) <= MOST_AT_ONCE
    assert lively.catch_up() == []


@pytest.mark.parametrize("repositories", [0, 1])
def test_small_worlds_live_too(repositories: int) -> None:
    """Where there is nothing, something is created first."""
    assert _lived(600, repositories=repositories)


def test_a_mirror_sees_what_happened_within_a_minute(tmp_path: Path) -> None:
    """The edits are made as it asks, and are changes in the mirror."""
    seconds, crawl = Seconds(), Clock()
    world = World(60, now=crawl.now)
    lively = Lively(world, per_minute=60, clock=seconds)
    with crawling(tmp_path, world, clock=crawl, lively=lively.catch_up) as (_, mirror):
        mirror.sync()
        before = len(mirror.changes())
        seconds.now = 60.0
        mirror.sync()
        assert len(mirror.changes()) > before + 10


def test_a_world_goes_on_where_its_mirror_left_it(tmp_path: Path) -> None:
    """What was done is done again after a restart, at its time; a line that was cut off spoils nothing."""
    journal, crawl, seen = tmp_path / "mirror.db.sandbox", Clock(), list[int]()

    def changes(seconds: float = 0.0) -> set[str]:
        """Start a world anew, let people work in it, and return what a full sync sees change."""
        clock, world = Seconds(), World(30, now=crawl.now)
        lively = Lively(world, per_minute=60, clock=clock, journal=journal)
        clock.now = seconds
        with crawling(tmp_path, world, clock=crawl, lively=lively.catch_up) as (_, mirror):
            assert mirror.sync(full=True, confirm_absence=True).state == "complete"
            new = mirror.changes()[sum(seen) :]
            seen.append(len(new))
            return {kind for kind, *_ in new}

    changes()
    assert {"deleted", "created", "renamed", "branch_moved", "branch_deleted"} <= changes(seconds=150)
    journal.write_bytes(journal.read_bytes() + b'\n{"at": 17')
    assert changes() == set()
    assert changes(seconds=60) != set()
    assert changes() == set()


def test_a_journal_does_not_grow_for_ever(tmp_path: Path) -> None:
    """Edits become rarer as it fills, and a restart goes on at the rate that it left."""
    journal, sizes = tmp_path / "journal", list[int]()
    for start in range(3):
        clock = Seconds()
        lively = Lively(World(50), per_minute=60, seed=start, clock=clock, journal=journal, most_kept=200)
        for second in range(0, 1_800, 30):
            clock.now = float(second)
            lively.catch_up()
        sizes.append(len(journal.read_bytes().splitlines()))
    assert 120 < sizes[0] < sizes[-1] < 220


def test_a_foreign_journal_spoils_no_world(tmp_path: Path) -> None:
    """What cannot be read is left out, and an edit of the future is made now."""
    journal, world = tmp_path / "journal", World(3)
    home = world.workspaces[0].slug
    made = [
        f'{{"at": {at}, "action": "create", "workspace": "{home}", "name": "new-{number}"}}'
        for number, at in enumerate(("9" * 30, "1e999", '"x"'))
    ]
    journal.write_text("\n".join(["[" * 200_000, "\0", *made]))
    Lively(world, journal=journal)
    found = [world.find(home, f"new-{number}") for number in range(3)]
    assert found[1:] == [None, None]
    assert found[0] is not None
    assert found[0].created <= world.clock.now()
