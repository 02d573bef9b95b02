"""Pages at any depth: what the index's lists do not reach, in the same order and as exact."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from search_oracle import OWNERS, Oracle, Playground, found_in_each_way, naive

from mirror.queries.search import find_repositories
from mirror.queries.visibility import OPERATOR
from mirror.search import search
from mirror.search.find import QueryEngine
from mirror.search.index.backlog import apply_backlog, rebuild_index, update_after_page
from mirror.search.index.check import check_index
from mirror.search.index.columns import MOST_STATES, ColumnWriter, KeptColumns, _kept
from mirror.search.many import FairSemaphore
from mirror.search.query import parse_query, wanted_owners
from mirror.store.files import open_reader

GONE = "2026-01-01T00:00:00.000000Z"


def _make_filled(path: Path) -> None:
    mirror = Playground(path)
    with mirror.store.transaction():
        mirror.fill(1000)
    with mirror.store.transaction() as connection:
        rebuild_index(connection, leaf_size=4)
    with mirror.store.transaction():
        mirror.fill(20, seed=2)
        for row_id in range(7, 940, 85):
            mirror.change(row_id, name=f"x-{row_id}")
            mirror.change(row_id + 10, followers_count=7)
            mirror.change(row_id + 20, is_private=row_id % 2)
            mirror.change(row_id + 30, deleted_at=GONE)
            mirror.change(row_id + 40, forks_count=row_id)
            mirror.change(row_id + 50, slug="tool")
    mirror.store.close()


@pytest.fixture(scope="module", params=["loose", "noted"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A thousand rows in an index of small leaves; some changed since, some are new, prepared or not."""
    mirror = Playground(tmp_path_factory.mktemp("deep") / "mirror.db", _make_filled)
    if request.param == "noted":
        with mirror.store.transaction() as connection:
            update_after_page(connection)
            mirror.change(47, name="x-noted-and-changed")
    assert check_index(mirror.connection) == []
    yield mirror
    mirror.store.close()


@pytest.fixture(scope="module")
def oracle(filled: Playground) -> Oracle:
    """Read the rows once: no test changes them."""
    return Oracle(filled.connection)


@pytest.mark.parametrize("visible_private", [True, False])
@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("query", ["", "x", "to", "-", "django", "data-k", "l-", "é", "x-x", "jan", "7"])
def test_pages_of_a_query_join_to_one_list(
    filled: Playground, oracle: Oracle, query: str, gone: bool, visible_private: bool
) -> None:
    """Each page may come from other sources: counts, rows that are read, or arrays."""
    options = {"gone": gone, "visible_private": visible_private}
    count, expected = oracle.find(query, limit=5000, **options)  # type: ignore[arg-type]
    for offset, limit in ((0, 7), (20, 20), (55, 20), (100, 3), (300, 50), (count - 3, 9), (count, 5)):
        start = max(offset, 0)
        found = found_in_each_way(filled.connection, query, offset=start, limit=limit, **options)
        assert found == (count, expected[start : start + limit])


def test_deep_pages_work_with_owners_and_filters(filled: Playground, oracle: Oracle) -> None:
    """Every hit is compared if the counts of the index do not apply."""
    for owner in OWNERS[:2]:
        count, expected = oracle.find("to", limit=5000, owner=owner, scm="git")
        found = search(filled.connection, "to", offset=20, limit=9, owner=owner, scm="git", fuzzy=False)
        assert (found.count, found.ids) == (count, expected[20:29])


FILTERS: list[dict[str, Any]] = [
    {"scm": "hg"},
    {"language": "PYTHON"},
    {"forks": True},
    {"forks": False, "visible_private": False},
    {"scm": "git", "gone": True},
    {"owner": "bob", "language": "go"},
    {"private": True, "forks": True},
    {"archived": True, "forks": False},
    {"archived": False, "language": "", "gone": True},
    {"language": "haskell"},
    {"scm": "git", "visible_private": False, "private_of": (2, 3)},
]


@pytest.mark.parametrize("said", FILTERS, ids=str)
@pytest.mark.parametrize("query", ["", "x", "to", "django", "data-k", "é", "x-x", "an/", "a/o", "nobody/"])
def test_the_pages_of_a_filtered_query_join_to_one_list(
    filled: Playground, oracle: Oracle, query: str, said: dict[str, Any]
) -> None:
    """Rows, arrays, and the rows that arrays leave agree with each other and with the naive search."""
    count, expected = oracle.find(query, limit=5000, **said)
    asked = {"visible_private": True, "private_of": (), **said}
    left = QueryEngine(filled.connection, parse_query(query, **asked), few=600).answer(0, 20)
    assert (left.total, [hit[-1] for hit in left.hits]) == (count, expected[:20])
    for offset, limit in ((0, 20), (20, 20), (100, 3), (count - 3, 9), (count, 5)):
        start = max(offset, 0)
        found = found_in_each_way(filled.connection, query, offset=start, limit=limit, **said)
        assert found == (count, expected[start : start + limit])


def test_the_check_finds_missing_bits_of_dense_paths(filled: Playground) -> None:
    """A path that many texts contain has a bit for each of them."""
    connection = filled.connection
    (dense,) = filled.store.row("SELECT count(DISTINCT path) FROM search_dense")
    assert dense > 30
    connection.execute("BEGIN")
    connection.execute(
        "UPDATE search_dense SET bits = zeroblob(length(bits)) WHERE path = CAST('to' AS BLOB)"
    )
    assert "dense path b'to' lacks" in check_index(connection)[0]
    connection.execute("ROLLBACK")


@pytest.mark.parametrize("indexed", [False, True])
def test_sql_and_python_compare_names_alike(tmp_path: Path, indexed: bool) -> None:
    """Also wild cards, hyphens for spaces, odd names and very long ones, when SQL counts with a filter."""
    mirror = Playground(tmp_path / "mirror.db")
    names = ["50%", "50x", "a_b", "a-b", "a b", "A  B", "a\tb", "axb", "x\\y", "ﬁsh", "fish", "Fish tank",
             "É", "e\u0301", "a\0b", "a", "z" * 1500, "z" * 1400 + "-z", "\u017fun", "K-\u212a"]  # fmt: skip
    with mirror.store:
        for name in names:
            mirror.add(name, slug="s" if len(name) > 3 else name)
            mirror.add(name)
        if indexed:
            mirror.store.rebuild_search_index()
        for query in [*names, *"%_-\\\0 absfkz", "a-", "-b", "z" * 1001, "z-z", "sun", "k-k", "s"]:
            found = found_in_each_way(mirror.connection, query, limit=99, scm="git")
            assert found == naive(mirror.connection, query, limit=99, scm="git")


def test_a_beginning_that_many_owners_share_finds_all_of_them(tmp_path: Path) -> None:
    """More than a statement should name; some names are not plain ASCII, and some rows not indexed."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        with mirror.store.transaction() as connection:
            connection.executemany(
                """INSERT INTO users (id, upstream_id, uuid, username, kind, first_seen_at, last_seen_at)
                   VALUES (?, 1, ?, ?, 'user', '', '')""",
                [(number, f"t{number}", f"T{number}") for number in range(10, 1200)]
                + [
                    (number, f"o{number}", name)
                    for number, name in ((1200, "Té"), (1201, "T x"), (1202, "ét"))
                ],
            )
            for number in range(300):
                mirror.add(f"tool-{number}", owner_id=number % 5 + 1 if number % 3 else 10 + 4 * number)
            for owner_id in (1200, 1201, 1202):
                mirror.add("tool-odd", owner_id=owner_id)
        for _ in range(2):
            for query in ("t/", "t/tool-1", "té/", "t/odd", "t-/", "T1/l", "an/tool", "é/"):
                assert found_in_each_way(mirror.connection, query) == naive(mirror.connection, query), query
            mirror.store.rebuild_search_index()
            mirror.change(1, name="tool-odd")


def test_an_owner_of_every_repository_filters_nothing(tmp_path: Path) -> None:
    """In a mirror of one workspace, its name before the slash costs nothing."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        for number in range(30):
            mirror.add(f"tool-{number}")
        for second in (None, 2):
            if second:
                mirror.add("tool-x", owner_id=second)
            for query in ("ann/tool", "a/", "bob/tool", "b/", "z/tool", "ann/2"):
                found = search(mirror.connection, query, limit=50, fuzzy=False)
                ids = found.ids
                assert (found.count, ids) == naive(mirror.connection, query, limit=50)


def test_a_filter_that_all_rows_pass_costs_nothing(tmp_path: Path) -> None:
    """Until a repository has another scm, or an unknown one."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        for number in range(30):
            mirror.add(f"tool-{number}")
        for other in ("git", "hg", None, "Git"):
            mirror.add("tool-x", scm=other)
            for scm in ("git", "GIT", "hg", "svn"):
                found = search(mirror.connection, "tool", scm=scm, fuzzy=False)
                row = mirror.store.row(
                    "SELECT count(*) FROM repositories WHERE scm = ? COLLATE NOCASE", (scm,)
                )
                assert found.count == row[0]


def test_a_beginning_that_all_owners_share_filters_nothing(tmp_path: Path) -> None:
    """Until somebody has another name, or one that is not plain, or none."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        connection = mirror.connection
        connection.execute("UPDATE users SET username = 'Team-' || id, is_owner = 0")
        for number in range(30):
            mirror.add(f"tool-{number}", owner_id=number % len(OWNERS) + 1)
        assert wanted_owners(connection, parse_query("tEa/", visible_private=True, private_of=())) is None
        for name in ("team-é", "teal", "a", "zoë", "te", None):
            connection.execute("UPDATE users SET username = ? WHERE id = 2", (name,))
            for query in ("tea/", "team-/2", "team-1/", "t/", "team-9/", "te/tool-1"):
                found = search(connection, query, limit=50, fuzzy=False)
                counted = [
                    row[0]
                    for row in connection.execute(
                        "SELECT r.name FROM repositories r JOIN users u ON u.id = r.owner_id WHERE "
                        "coalesce(lower(u.username), '') = ? OR (NOT EXISTS (SELECT 1 FROM users "
                        "WHERE lower(username) = ?) AND coalesce(lower(u.username), '') LIKE ? || '%')",
                        [query.partition("/")[0]] * 3,
                    )
                ]
                assert found.count == sum(query.partition("/")[2] in name for name in counted), (name, query)


def test_columns_are_kept_for_one_state_of_the_index_alone(tmp_path: Path) -> None:
    """All connections share them in memory, until others are written, or that is rolled back."""
    mirror = Playground(tmp_path / "mirror.db")
    said = list[str]()

    def reads() -> int:
        columns = [sql for sql in said if "data FROM search_columns" in sql and "stamp" not in sql]
        said.clear()
        return len(columns)

    with mirror.store:
        with mirror.store.transaction():
            mirror.fill(300)
        for change in ({}, {"scm": "hg"}, {"language": "go"}, {"followers_count": 9}, {"owner_id": 3}):
            with mirror.store.transaction() as connection:
                mirror.change(7, **{"scm": "git", **change})
                apply_backlog(connection) if change else rebuild_index(connection, leaf_size=4)
            for again in (False, True):
                with closing(sqlite3.connect(mirror.store.path)) as reader:
                    reader.set_trace_callback(said.append)
                    for options in ({"scm": "hg"}, {"language": "go"}, {"owner": "annie"}, {"forks": False}):
                        found = found_in_each_way(reader, "to", limit=50, **options)
                        assert found == naive(mirror.connection, "to", limit=50, **options)
                    assert (reads() > 0) == (not again)
        mirror.connection.execute("BEGIN")
        mirror.change(7, scm="git", name="to-go")
        apply_backlog(mirror.connection)
        mirror.change(8, scm="svn", name="to-gone")
        for undone in (False, True):
            if undone:
                mirror.connection.execute("ROLLBACK")
            found = found_in_each_way(mirror.connection, "to", limit=50, scm="git")
            assert found == naive(mirror.connection, "to", limit=50, scm="git")
        assert len(_kept) <= MOST_STATES


def test_users_who_ask_at_once_read_a_column_once() -> None:
    """The second waits for the first, instead of reading it too."""
    kept, meeting, made = KeptColumns(), Barrier(2), list[int]()

    def make() -> NDArray[Any]:
        with suppress(BrokenBarrierError):  # nobody else comes here
            meeting.wait(0.1)
        made.append(1)
        return np.zeros(1)

    users = [Thread(target=kept.get, args=("flags", make)) for _ in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert made == [1]


def test_a_fair_semaphore_is_released_after_errors_too() -> None:
    """While one of two is held, the other threads work one after another."""
    semaphore, working, most = FairSemaphore(2), list[int](), list[int]()

    def work(number: int) -> None:
        with suppress(ValueError), semaphore.held():
            working.append(number)
            most.append(len(working))
            working.remove(number)
            if number % 3 == 0:
                raise ValueError

    users = [Thread(target=work, args=(number,)) for number in range(30)]
    with semaphore.held():
        for user in users:
            user.start()
        for user in users:
            user.join()
    assert len(most) == 30
    assert max(most) == 1
    with semaphore.held(), semaphore.held():
        pass


@pytest.mark.parametrize(
    ("query", "most"),
    [("to", 11), ("", 8), ("django-tool-x", 10), ("django-tool-flask-kit", 22), ("djngo-tool", 34)],
)
def test_few_statements_answer_a_keystroke(tmp_path: Path, query: str, most: int) -> None:
    """Common, empty, rare, unmatched and corrected queries, with rows and links."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        with mirror.store.transaction() as connection:
            mirror.fill(400)
            mirror.add("django-tool-x")
            rebuild_index(connection, leaf_size=4)
        said = list[str]()
        with closing(open_reader(tmp_path / "mirror.db")) as reader:
            reader.set_trace_callback(said.append)
            found = find_repositories(reader, OPERATOR, query)
        said = [sql for sql in said if "data_version" not in sql]  # a microsecond, without a table
        assert (bool(found.count), found.fuzzy) == (len(query) < 20, query == "djngo-tool")
        assert len(said) <= most


@pytest.mark.parametrize("said", [{"description": b"\xff\0"}, {"size": 1.5}, {"size": float("inf")}])
def test_a_row_is_read_that_json_cannot_hold(tmp_path: Path, said: dict[str, Any]) -> None:
    """Rows are read as JSON, except those with a value that JSON cannot hold."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store, mirror.store.transaction():
        row_id = mirror.add('odd "\\ \x00\x1fü', slug="odd")
        mirror.change(row_id, **said)
        [row] = find_repositories(mirror.connection, OPERATOR, "odd").repositories
        assert row.name == 'odd "\\ \x00\x1fü'
        assert row.columns(*said) == said


def test_rows_are_kept_while_the_file_stays_as_it_is(tmp_path: Path) -> None:
    """A second search reads none; a change shows at once, also to its writer, and so does a rollback."""
    path = tmp_path / "mirror.db"
    mirror = Playground(path)
    with mirror.store, closing(open_reader(path)) as reader:
        row_id = mirror.add("tool")
        mirror.store.rebuild_search_index()

        def seen(connection: sqlite3.Connection) -> tuple[str | None, bool]:
            said = list[str]()
            connection.set_trace_callback(said.append)
            [row] = find_repositories(connection, OPERATOR, "tool").repositories
            connection.set_trace_callback(None)
            return row.description, any("json_each" in sql for sql in said)

        assert [seen(reader), seen(reader), seen(mirror.connection)] == [
            (None, True),
            (None, False),
            (None, True),
        ]
        mirror.change(row_id, description="new")
        assert [seen(reader), seen(reader), seen(mirror.connection)] == [
            ("new", True),
            ("new", False),
            ("new", True),
        ]
        mirror.connection.execute("BEGIN")
        mirror.change(row_id, description="newer")
        assert seen(mirror.connection)[0] == "newer"
        mirror.connection.execute("ROLLBACK")
        assert seen(mirror.connection)[0] == "new"


def test_languages_are_numbered_in_the_order_of_the_rows(tmp_path: Path) -> None:
    """So a published file has the same bytes in every process."""
    mirror = Playground(tmp_path / "mirror.db")
    languages = ["ruby", "c", None, "java", "c", "php", "go", "lua", "perl", "ada", "tcl", "r", "d", "nim"]
    with mirror.store.transaction() as connection:
        codes = ColumnWriter(connection).codes(languages)
    first = dict.fromkeys(languages)
    del first[None]
    assert codes.tolist() == [0 if one is None else [*first].index(one) + 1 for one in languages]
