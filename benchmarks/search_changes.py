"""Rows as a sync leaves them, and 10,000 changes to them, for `benchmarks/search.py`."""

import sqlite3
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from search_corpus import Named, make_names

from mirror.search.index.backlog import apply_backlog, update_after_page
from mirror.store import Store

MOMENT = "2026-01-01T00:00:00.000000Z"

INSERT = """INSERT INTO repositories (id, upstream_id, uuid, owner_id, slug, name, full_name, scm,
        is_private, description, followers_count, forks_count, created_at, updated_at, first_seen_at,
        last_seen_at)
    VALUES (?, 1, ?, ?, ?, ?, ?, 'git', ?, ?, ?, ?, ?, ?, ?, ?)"""


def row_of(number: int, named: Named, owners: dict[str, int]) -> tuple[Any, ...]:
    """Return the values of INSERT; `owners` maps each owner to its id, and is extended."""
    owner = owners.setdefault(named.owner, len(owners) + 1)
    created = (
        f"20{10 + number % 15}-{1 + number % 12:02}-{1 + number % 28:02}T12:00:00.{number % 1_000_000:06}Z"
    )
    about = f"The sources of {named.name}, with what it takes to build and to run them"
    return (
        number, f"{{{number:032x}}}", owner, named.slug, named.name, f"{named.owner}/{named.slug}",
        int(named.private), about, named.followers, named.followers // 7, created, MOMENT, MOMENT, MOMENT,
    )  # fmt: skip


def update(path: Path) -> dict[str, float]:
    """Change 10,000 repositories in pages of 100, then flush them into the lists of the index.

    Return the seconds that the index and the commits took.
    """
    spent = cpu = 0.0
    with Store(path) as store:
        highest = store.row("SELECT max(id) FROM repositories")[0]
        step = max(1, highest // 10_001)
        for first in range(0, 10_000, 100):
            with store.transaction() as connection:
                for number in range(first, first + 100):
                    _change(connection, number, 1 + number * step % highest, highest + 1 + number)
                begun, begun_cpu = time.perf_counter(), time.process_time()
                update_after_page(connection)
            spent += time.perf_counter() - begun  # with the commit, which writes what the update changed
            cpu += time.process_time() - begun_cpu
        begun, begun_cpu = time.perf_counter(), time.process_time()
        store.finish_search_index()
        spent += time.perf_counter() - begun
        cpu += time.process_time() - begun_cpu
        begun_cpu = time.process_time()
        with store.transaction() as connection:
            apply_backlog(connection)
        flushed = time.process_time() - begun_cpu
    return {
        "update_10k_s": round(spent, 2),
        "update_10k_cpu_s": round(cpu, 2),
        "flush_10k_cpu_s": round(flushed, 2),
    }


def _change(connection: sqlite3.Connection, number: int, row_id: int, new_id: int) -> None:
    """Make one change: 40 % new rows, 40 % new followers, 10 % renamed, 5 % visibility, 5 % gone."""
    turn = number % 20
    if turn < 8:
        named = next(make_names(1, seed=number))
        connection.execute(INSERT, row_of(new_id, named, {named.owner: 1}))
    elif turn < 16:
        connection.execute(
            "UPDATE repositories SET followers_count = followers_count + 1 WHERE id = ?", (row_id,)
        )
    elif turn < 18:
        connection.execute(
            "UPDATE repositories SET name = name || '-next', slug = slug || '-next' WHERE id = ?", (row_id,)
        )
    elif turn < 19:
        connection.execute("UPDATE repositories SET is_private = NOT is_private WHERE id = ?", (row_id,))
    else:
        connection.execute("UPDATE repositories SET deleted_at = ? WHERE id = ?", (MOMENT, row_id))


def write_pages(path: Path) -> None:
    """Save a page of 100 changes ten times a second, until stopped."""
    with Store(path) as store:
        highest = store.row("SELECT max(id) FROM repositories")[0]
        for first in count(0, 100):
            with store.transaction() as connection:
                for number in range(first, first + 100):
                    _change(connection, number, 1 + number * 7919 % highest, highest + 1 + number)
                update_after_page(connection)
            time.sleep(0.1)


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
