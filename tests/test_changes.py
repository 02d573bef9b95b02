"""Which changes are read: filters, their indexes, pages, and clocks that were wrong."""

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fixtures_db import FixtureDb, owner, repository
from lives import live, moment

from mirror.errors import NotFound
from mirror.queries.accounts import known_account_by_id
from mirror.queries.changes import (
    FEW,
    KINDS,
    MOMENTS,
    OF_OWNERS,
    UNEXPECTED,
    ChangeFilter,
    latest_changes,
    lines_of_run,
    timeline,
)
from mirror.queries.past import details_of, known_since, past_named, pasts_owned
from mirror.queries.visibility import ANONYMOUS, OPERATOR, Caller
from mirror.store.changes import RARE
from mirror.store.files import open_reader

MINE = Caller(name="ann", username="ann", user_ids=(1,))
SMALL = re.compile(r"SCAN (json_each|w |c VIRTUAL|named|n$|up$|upstreams$|m$|sqlite_master|\(subquery)")
"""What may be read from end to end: what was asked for, a part of a statement, a table that stays small."""

NARROW: tuple[dict[str, Any], ...] = (
    *({"kinds": (kind,)} for kind in RARE),
    {"kinds": KINDS["tags"]},
    {"kinds": ("renamed", "deleted", "restored"), "since": moment(15)},
    {"owner": "Bob"},
    {"owner": "bob", "kinds": ("branch_moved", "renamed")},
    {"owner": "nobody"},
    {"since": moment(35), "until": moment(80)},
    {"until": moment(30)},
)
"""Filters of changes that indexes find, whatever the number of changes."""


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixtureDb]:
    """A repository with a past."""
    filled = live(tmp_path_factory.mktemp("lived") / "mirror.db")
    yield filled
    filled.store.close()


@pytest.mark.parametrize("caller", [ANONYMOUS, MINE, OPERATOR], ids=lambda caller: caller.name)
def test_the_past_and_the_unexpected_are_found_by_indexes(lived: FixtureDb, caller: Caller) -> None:
    """No statement scans a growing table, nor all unexpected changes."""
    said = list[str]()
    owners = ChangeFilter(owner_ids=(1,), until=moment(60))
    with closing(open_reader(lived.path)) as connection:
        owner_row = known_account_by_id(connection, OPERATOR, 1)
        assert owner_row is not None
        connection.set_trace_callback(said.append)
        for name in ("ann/old", "bob/new", "ann/nothing"):
            with suppress(NotFound):
                past = past_named(connection, caller, name, moment(75))
                details_of(connection, past)
                timeline(connection, caller, ChangeFilter(repository_id=1), moment(75), since=past.since)
        with suppress(NotFound):
            pasts_owned(connection, caller, owner_row, moment(75))
        known_since(connection, caller, 1)
        timeline(connection, caller, owners, moment(25))
        latest_changes(connection, caller, owners, limit=9)
        for kinds in (tuple(UNEXPECTED), *((name,) for name in UNEXPECTED)):
            latest_changes(connection, caller, ChangeFilter(unexpected=kinds), limit=9)
        for filters in NARROW:
            latest_changes(connection, caller, ChangeFilter(**filters), limit=9)
        for name in UNEXPECTED:
            lines_of_run(connection, name, "cloud", (2, 9), [1])
        connection.set_trace_callback(None)
        plans = {
            sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
            for sql in said
            if not sql.startswith("--")
        }
    read = [(step, sql) for sql, plan in plans.items() for step in plan]
    assert any(step.startswith("SEARCH c USING INDEX changes_rare (kind=?") for step, _ in read)
    in_order = "SCAN c USING INDEX changes_forced"
    whole = [(step, sql) for step, sql in read if step.startswith("SCAN") and not SMALL.match(step)]
    assert [one for one in whole if one[0] != in_order] == []
    for sql, plan in plans.items():
        if in_order in plan or "changes_rare" in str(plan):  # the latest of them, and no more
            assert "USE TEMP B-TREE FOR ORDER BY" not in plan, sql


def test_filtered_changes_are_those_of_all_changes_that_match(tmp_path: Path) -> None:
    """Filters by index give the same as comparing each change."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories(
        [repository("ann/tool"), repository("bob/tool", owner("bob"))], at=moment(0), first=True
    )
    kinds = sorted(kind for group in KINDS.values() for kind in group if kind not in OF_OWNERS)
    with filled.store.transaction() as connection:
        connection.executemany(
            "INSERT INTO changes (at, kind, repository_id) VALUES (?, ?, ?)",
            [(moment(number), kinds[number * 5 % len(kinds)], 1 + number % 3 // 2) for number in range(150)],
        )
        connection.execute(
            "INSERT INTO changes (at, kind, user_id) VALUES (?, 'owner_renamed', 2)", (moment(151),)
        )
    for caller in (ANONYMOUS, OPERATOR):
        everything = latest_changes(filled.store.connection, caller, ChangeFilter(), limit=1_000).rows
        assert len(everything) > 150
        for filters in NARROW:
            wanted = ChangeFilter(**filters)
            expected = [
                row
                for row in everything
                if (not wanted.kinds or row.kind in wanted.kinds)
                and wanted.owner.lower() in ("", (row.owner or "").lower())
                and row.at >= wanted.since
                and (not wanted.until or row.at < wanted.until)
            ]
            assert expected or wanted.owner == "nobody"
            for start in (0, 2):
                got = latest_changes(filled.store.connection, caller, wanted, limit=3, offset=start)
                assert (got.rows, got.more) == (expected[start : start + 3], len(expected) > start + 3)
    filled.store.close()


def test_changes_are_found_by_any_part_of_a_ref(tmp_path: Path) -> None:
    """LIKE has signs of its own and knows the case of ASCII letters only, as do the answers."""
    names = ["Feature/a_B", "feature/a-b", "100%", "%_", "É%", "é", f"{'x' * 60}%y", "a\\b", None]
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("ann/tool")], at=moment(0), first=True)
    with filled.store.transaction() as connection:
        connection.executemany(
            "INSERT INTO changes (at, kind, repository_id, ref) VALUES (?, 'branch_moved', 1, ?)",
            [(moment(number), name) for number, name in enumerate(names)],
        )

    def lower(text: str) -> str:
        return "".join(letter.lower() if letter.isascii() else letter for letter in text)

    for part in ("A_b", "a", "%", "_", "É", "é%", "x" * 59 + "%", "x" * 61, "\\", "%y", "0%0", "\0", "a\0"):
        expected = [name for name in reversed(names) if name is not None and lower(part) in lower(name)]
        found = latest_changes(filled.store.connection, OPERATOR, ChangeFilter(ref=part), limit=99)
        assert [row.ref for row in found.rows] == expected, part
    filled.store.close()


@pytest.mark.parametrize("wrong", ["2036-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000000Z"])
@pytest.mark.parametrize("first", [1, 5, 18])
def test_a_clock_that_was_wrong_once_hides_no_changes(public_db: FixtureDb, wrong: str, first: int) -> None:
    """Whatever moments they are asked for: those of the right times, and those of the wrong one."""
    days = [f"2026-11-{day:02}T00:00:00.000000Z" for day in range(1, 21)]
    with public_db.store.transaction() as connection:
        connection.execute("DELETE FROM changes")
        connection.executemany(
            "INSERT INTO changes (id, at, kind, repository_id, ref) VALUES (?, ?, 'branch_deleted', 1, 'x')",
            [(number, wrong if first <= number < first + 3 else at) for number, at in enumerate(days, 1)],
        )
    moments = ("", "2000-01-01T00:00:00.000000Z", *days[::4], "2030-01-01T00:00:00.000000Z")
    for since, until in product(moments, moments):
        found = latest_changes(
            public_db.store.connection, OPERATOR, ChangeFilter(since=since, until=until), limit=99
        )
        scanned = public_db.store.rows(
            "SELECT id FROM changes WHERE at >= ? AND at < ? ORDER BY id DESC", (since, until or "~")
        )
        assert [row.id for row in found.rows] == [row_id for (row_id,) in scanned]


def test_steps_among_many_changes_of_an_owner(tmp_path: Path) -> None:
    """An owner with too many changes to sort has the same steps and latest changes."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories(
        [repository("ann/tool"), repository("bob/tool", owner("bob"))], at=moment(0), first=True
    )
    with filled.store.transaction() as connection:
        connection.execute(
            """WITH RECURSIVE minutes (number) AS (VALUES (1) UNION ALL
                   SELECT number + 1 FROM minutes WHERE number < ?)
               INSERT INTO changes (at, kind, repository_id, ref, new)
               SELECT strftime('%Y-%m-%dT%H:%M:%S.000000Z', ?,
                       '+' || (number + 9 * (number % 7 = 0)) || ' minutes'),  -- some are late
                   'branch_moved', 1 + (number % 3 = 0), 'master', number FROM minutes""",
            (3 * FEW // 2 + 99, moment(0)[:19]),
        )
    of_ann = [
        row[0] for row in filled.store.rows("SELECT at FROM changes WHERE repository_id = 1 ORDER BY at, id")
    ]
    assert len(of_ann) > FEW
    wanted = ChangeFilter(owner_ids=(1,))
    for minutes in (0, 5, 5_000, 26_000, 40_000):
        at = moment(minutes)
        before = sorted({one for one in of_ann if one <= at})
        after = sorted({one for one in of_ann if one > at})
        found = timeline(filled.store.connection, OPERATOR, wanted, at)
        assert found.moments == [*before[-MOMENTS:], *after[:MOMENTS]]
        until = latest_changes(
            filled.store.connection, OPERATOR, ChangeFilter(owner_ids=(1,), until=f"{at}~"), limit=9
        )
        assert [row.id for row in until.rows] == [
            row[0]
            for row in filled.store.rows(
                "SELECT id FROM changes WHERE repository_id = 1 AND at <= ? ORDER BY id DESC LIMIT 9", (at,)
            )
        ]
    filled.store.close()
