"""A search equals a scan of all rows, whatever happened to them and whatever the index contains."""

import random
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_oracle import MOMENTS, OWNERS, Oracle, Playground, found_in_each_way

from mirror.search import search
from mirror.search.index.backlog import apply_backlog, prepare_pending, rebuild_index
from mirror.search.index.check import check_index

OTHERS = 600
STORABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SHARED = st.text("ab-É ﬁ\0%_\\B\t", max_size=5)
NAMES = SHARED | STORABLE | st.sampled_from(["a" * 40, "ab" * 30, "ba" * 17 + "é"])
QUERIES = st.text("abÉ-/%_", max_size=3) | SHARED | st.text(max_size=3) | NAMES

ADDED = st.fixed_dictionaries(
    {
        "name": NAMES,
        "slug": st.none() | NAMES,
        "owner_id": st.integers(1, len(OWNERS)),
        "is_private": st.booleans(),
        "followers_count": st.sampled_from([None, 0, 0, 1, 7]),
        "forks_count": st.sampled_from([None, 0, 1]),
        "created_at": st.sampled_from(MOMENTS),
        "deleted_at": st.sampled_from([None, None, "2026-01-01T00:00:00.000000Z"]),
        "scm": st.sampled_from(["git", "Git", "hg", "svn", None]),
        "language": st.sampled_from([None, "", "go", "Go"]),
        "parent_full_name": st.sampled_from([None, "ann/a"]),
        "archived": st.sampled_from([None, 0, 1]),
    }
)
CHANGED = st.one_of(
    st.builds(lambda name: {"name": name, "slug": name}, NAMES),
    st.builds(lambda yes: {"is_private": yes}, st.booleans()),
    st.builds(lambda when: {"deleted_at": when}, st.sampled_from([None, "2026-02-02T00:00:00.000000Z"])),
    st.builds(lambda count: {"followers_count": count}, st.integers(0, 9) | st.just(2**40)),
    st.builds(lambda owner: {"owner_id": owner}, st.integers(1, len(OWNERS))),
    st.sampled_from(
        [
            {"scm": "hg"},
            {"scm": "svn"},
            {"language": "go"},
            {"language": None},
            {"archived": 1},
            {"parent_full_name": "ann/b"},
            {"parent_full_name": None},
            {"created_at": "odd"},
        ]
    ),
)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(ADDED, min_size=1, max_size=12)),
    st.tuples(st.just("change"), st.lists(st.tuples(st.integers(1, 40), CHANGED), min_size=1, max_size=4)),
    st.tuples(st.just("remove"), st.integers(1, 40)),
    st.tuples(st.sampled_from(["apply", "rebuild", "prepare", "nothing"]), st.none()),
)
ASKED = st.tuples(
    QUERIES,
    st.fixed_dictionaries(
        {
            "limit": st.sampled_from([0, 1, 5, 50]),
            "offset": st.sampled_from([0, 0, 1, 4]),
            "visible_private": st.booleans(),
            "private": st.sampled_from([None, None, True, False]),
            "gone": st.booleans(),
            "scm": st.sampled_from([None, None, "hg", "svn"]),
            "archived": st.sampled_from([None, None, True, False]),
            "private_of": st.sampled_from([(), (), (2,), (1, 3)]),
            "language": st.sampled_from([None, None, None, "GO"]),
            "forks": st.sampled_from([None, None, None, True, False]),
            "owner": st.sampled_from([None, None, None, "bob"]),
        }
    ),
)


def _do(mirror: Playground, kind: str, what: Any, leaf_size: int, before: int) -> None:
    if kind == "add":
        for said in what:
            mirror.add(**said)
    elif kind == "change":
        for row_id, said in what:
            mirror.change(before + row_id, **said)
    elif kind == "remove":
        mirror.remove(before + what)
    elif kind == "apply":
        with mirror.store.transaction() as connection:
            apply_backlog(connection, leaf_size)
    elif kind == "rebuild":
        with mirror.store.transaction() as connection:
            rebuild_index(connection, leaf_size)
    elif kind == "prepare":
        with mirror.store.transaction() as connection:
            prepare_pending(connection)


def _with_others(path: Path) -> None:
    """Make a mirror with many other rows."""
    mirror = Playground(path)
    with mirror.store, mirror.store.transaction():
        for number in range(OTHERS):
            mirror.add(f"w{number % 7}")


@settings(max_examples=examples(30), suppress_health_check=list(HealthCheck))
@given(
    leaf_size=st.integers(1, 4),
    others=st.sampled_from([0, OTHERS]),
    history=st.lists(st.tuples(STEPS, st.lists(ASKED, max_size=4)), min_size=3, max_size=14),
)
def test_a_search_equals_a_scan_after_any_history(
    leaf_size: int, others: int, history: list[tuple[Any, list[Any]]]
) -> None:
    """Upserts, renames, deletions, visibility, index updates and queries in any order, with any Unicode.

    With many other rows, queries are answered by lists that would otherwise be answered by a scan.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mirror.db"
        mirror = Playground(path, _with_others) if others else Playground(path)
        with mirror.store:
            for (kind, what), questions in history:
                _do(mirror, kind, what, leaf_size, others)
                oracle = Oracle(mirror.connection) if questions else None
                for query, asked in questions:
                    found = found_in_each_way(mirror.connection, query, **asked)
                    assert oracle
                    assert found == oracle.find(query, **asked)
            assert check_index(mirror.connection) == []


@pytest.mark.parametrize("seed", range(examples(3)))
def test_lists_stay_correct_while_many_rows_change(tmp_path: Path, seed: int) -> None:
    """Popular repositories come, go, rise and fall: lists shrink, grow, are ranked again and emptied."""
    choose = random.Random(seed)
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        for number in range(120):
            mirror.add(
                f"tool-{number % 50}", followers_count=choose.randrange(9), is_private=number % 11 == 0
            )
        mirror.store.rebuild_search_index()
        for _ in range(25):
            by_rank = search(mirror.connection, "tool", limit=200).ids
            for row_id in {*by_rank[:: choose.randint(3, 9)], *by_rank[: choose.choice((0, 3, 30))]}:
                fate = choose.randrange(4)
                if fate == 0:
                    mirror.remove(row_id)
                else:
                    mirror.change(row_id, followers_count=choose.randrange(9), is_private=int(fate == 1))
            for number in range(choose.choice((2, 20, 60))):
                mirror.add(f"tool-{number}", followers_count=choose.randrange(9))
            with mirror.store.transaction() as connection:
                apply_backlog(connection, leaf_size=30)
            assert check_index(mirror.connection) == []
            oracle = Oracle(mirror.connection)
            for query, visible in product(("", "t", "tool", "tool-7", "-1"), (True, False)):
                count, ids = oracle.find(query, limit=60, visible_private=visible)
                for limit in (20, 60) if visible else (3,):
                    found = search(
                        mirror.connection, query, fuzzy=False, limit=limit, visible_private=visible
                    )
                    assert (found.count, found.ids) == (count, ids[:limit])


def test_long_lists_and_deep_pages_equal_a_scan(tmp_path: Path) -> None:
    """There are more matches than a node lists, and changes that shrink the lists."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        mirror.fill(500)
        mirror.store.rebuild_search_index()
        for row_id in range(1, 200, 3):
            mirror.change(row_id, followers_count=row_id % 7, name=f"django-{row_id}")
        for settled in (False, True):
            if settled:
                mirror.store.finish_search_index()
            oracle = Oracle(mirror.connection)
            for query in ("", "d", "django", "jang", "kit", "é", "bob/django", "django-1"):
                for offset in (0, 20, 100, 480):
                    found = search(mirror.connection, query, offset=offset, fuzzy=False)
                    ids = found.ids
                    assert (found.count, ids) == oracle.find(query, offset=offset)
        assert check_index(mirror.connection) == []
