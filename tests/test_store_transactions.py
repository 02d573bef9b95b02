"""Transactions of the store: nested ones, and several that are committed together."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from prepared_files import opened

from mirror.errors import StoreError
from mirror.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty mirror."""
    with opened(tmp_path / "mirror.db") as store:
        yield store


def learn(store: Store, *buckets: str) -> None:
    """Write some rows in a transaction, with another one within it; an error follows a bucket "bad"."""
    with store.transaction():
        for bucket in buckets:
            with store.transaction() as connection:
                connection.execute("INSERT INTO request_limits (bucket) VALUES (?)", (bucket,))
            if bucket == "bad":
                raise KeyboardInterrupt


def seen(store: Store) -> str:
    """Return what another process sees."""
    with closing(sqlite3.connect(store.path)) as connection:
        return "".join(row[0] for row in connection.execute("SELECT bucket FROM request_limits ORDER BY 1"))


def test_transactions_are_committed_together(store: Store) -> None:
    """At the end, by one commit."""
    statements = list[str]()
    store.connection.set_trace_callback(statements.append)
    with store.together():
        learn(store, "a")
        learn(store, "b", "c")
        assert seen(store) == ""
    assert seen(store) == "abc"
    assert [sum(each.startswith(word) for each in statements) for word in ("BEGIN", "COMMIT")] == [1, 1]
    learn(store, "d")
    assert seen(store) == "abcd"


def test_items_are_written_together_before_anything_else(store: Store) -> None:
    """Those that follow at once; an error undoes all of them, and outside of `together` each is alone."""
    written = list[list[str]]()

    def write(items: list[str]) -> None:
        written.append(items)
        learn(store, *items)

    with store.together():
        store.write_later("a", write)
        store.write_later("b", write)
        assert written == []
        learn(store, "c")
        assert written == [["a", "b"]]
        store.write_later("d", write)
        assert store.value("SELECT count(*) FROM request_limits") == 4
        store.write_later("e", write)
    assert (written, seen(store)) == ([["a", "b"], ["d"], ["e"]], "abcde")
    with suppress(KeyboardInterrupt), store.together():
        learn(store, "f")
        store.write_later("g", write)
        store.write_later("bad", write)
    assert seen(store) == "abcdef"
    store.write_later("h", write)
    assert (written[-1], seen(store)) == (["h"], "abcdefh")


def test_an_error_costs_its_own_transaction(store: Store) -> None:
    """Earlier and later transactions stay; the error is raised."""
    with suppress(KeyboardInterrupt), store.together():
        learn(store, "a")
        learn(store, "b", "bad")
        raise AssertionError
    assert seen(store) == "a"
    with store.together():
        with suppress(KeyboardInterrupt):
            learn(store, "c", "bad")
        learn(store, "d")
    assert seen(store) == "ad"


@pytest.mark.parametrize("what", ["moved", "removed", "replaced"])
def test_a_file_that_is_not_in_its_place_is_not_written_to(store: Store, what: str) -> None:
    """What is saved would be lost, and nobody would know; another file in its place stays as it is."""
    learn(store, "a")
    if what == "removed":
        store.path.unlink()
    else:
        store.path.rename(store.path.with_name("other.db"))
    if what == "replaced":
        store.path.write_text("another")
    for write in (store.transaction, store.together):
        with pytest.raises(StoreError, match="was moved, removed or replaced"), write():
            raise AssertionError
    assert store.path.exists() == (what == "replaced")
    assert what != "replaced" or store.path.read_text() == "another"


def test_a_commit_that_fails_writes_none_of_them(store: Store) -> None:
    """The next transaction starts anew."""

    def write() -> None:
        with store.together():
            learn(store, "a")
            with store.transaction() as connection:
                connection.execute("PRAGMA defer_foreign_keys = ON")
                connection.execute("INSERT INTO followers (repository_id, user_id) VALUES (9, 9)")

    with pytest.raises(StoreError, match="FOREIGN KEY"):
        write()
    assert seen(store) == ""
    learn(store, "b")
    assert seen(store) == "b"


class Interrupted:
    """A connection on which Ctrl-C comes just after a statement."""

    def __init__(self, connection: sqlite3.Connection, after: str) -> None:
        self._connection, self._after = connection, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run it."""
        found = self._connection.execute(sql, *values)
        if sql == self._after:
            self._after = ""
            raise KeyboardInterrupt
        return found


@pytest.mark.parametrize(
    ("after", "expected"),
    [("BEGIN IMMEDIATE", ""), ("SAVEPOINT one", ""), ("RELEASE one", "a"), ("COMMIT", "ab")],
)
def test_ctrl_c_between_statements_is_no_other_error(store: Store, after: str, expected: str) -> None:
    """It is raised as it is, and the next transaction begins anew."""
    plain = store.connection
    store.connection = cast("Any", Interrupted(plain, after))

    def write() -> None:
        with store.together():
            learn(store, "a")
            learn(store, "b")

    with pytest.raises(KeyboardInterrupt):
        write()
    store.connection = plain
    assert (seen(store), plain.in_transaction) == (expected, False)
    learn(store, "c")
    assert seen(store) == expected + "c"
