"""What visitors read: check and read see one state of the file, and strangers see what the APIs show."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of
from datasette.app import Datasette
from datasette.utils.asgi import Forbidden
from fixtures_db import (
    LATER,
    SEEN,
    FixtureDb,
    copy_rows,
    fill_mixed,
    fill_public,
    hg_ref,
    owner,
    repository,
)

from mirror.mcp.sql import ask
from mirror.queries.visibility import ANONYMOUS
from mirror.serve import auth
from mirror.serve.guarded_database import THREADS, GuardedDatabase, mirrors
from mirror.serve.sql_access import current_visitor
from mirror.serve.stored_queries import QUERIES
from mirror.store import tokens
from mirror.store.changes import hide_history
from mirror.store.runs import Failure, Failures
from mirror.times import from_text

HIDDEN = repository("jespern/arriving", is_private=True, description="Arriving soon")
READ = "SELECT full_name, description FROM repositories"
UNTOLD = (b"mallory", b"Mallory", b"elsewhere/parent", b"odd-name", b"untold-error")
SHOWN = ("/mirror.json?sql=select+full_name+from+repositories", "/mirror/repositories.json")


def closed_file(path: Path) -> None:
    """A mirror with private rows, all of them in the file itself."""
    fill_mixed(path).store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def without_number(path: Path) -> None:
    """As in a restored dump: all tables, no `application_id`."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 0")
    connection.close()


def of_another_version(path: Path) -> None:
    """As a file of a program that hides other columns."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()


@pytest.mark.parametrize("change", [closed_file, without_number, of_another_version])
@pytest.mark.parametrize("name", ["mirror.db", "m#1.db", "m%23.db"])
def test_an_immutable_file_is_closed_to_sql_but_served(
    tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    """If SQLite cannot open the file as usual, strangers read public rows only through the APIs."""
    closed_file(tmp_path / name)
    if change is not closed_file:
        change(tmp_path / name)
    served = AsgiClient(Datasette([], immutables=[str(tmp_path / name)]))
    database = next(mirrors(served.datasette))
    for path in ("repositories.json", "branches.csv", "users/1.json", "languages.json", "find.json?part=a"):
        assert served.get(f"/{database.route or database.name}/{path}").status_code in (403, 404), path
    asked = {"sql": READ}
    assert served.get(f"/{database.route or database.name}.json", params=asked).status_code in (403, 404)
    assert served.get(f"/{database.route or database.name}.db").status_code in (403, 404)
    assert served.json("/2.0/repositories/jespern/django-piston")["is_private"] is False
    assert served.get("/1.0/repositories/jespern/arriving").status_code in (403, 404)


def test_an_immutable_file_with_changes_beside_it_is_closed(public_db: FixtureDb) -> None:
    """An immutable reader ignores the WAL, where a repository may have been made private."""
    public_db.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    served = AsgiClient(Datasette([], immutables=[str(public_db.path)]))
    assert served.get("/mirror.json", params={"sql": READ}).status_code == 200
    public_db.repositories([repository("mcatalbas/codeigniter", is_private=True)])
    assert served.get("/mirror.json", params={"sql": READ}).status_code == 403
    assert served.get("/mirror/repositories.csv").status_code == 403
    repository_there = "mcatalbas/codeigniter"
    for path in (f"/2.0/repositories/{repository_there}", f"/1.0/repositories/{repository_there}"):
        assert served.get(path).status_code == 503, path
    for path in (f"/-/r/{repository_there}", "/-/search.json?q=codeigniter", "/-/changes.atom", "/"):
        answer = served.get(path)
        assert answer.status_code == 503, path
        assert "the log says why" in answer.text, path
        assert repository_there not in answer.text, path


def test_a_file_that_becomes_a_mirror_while_it_is_served_is_closed(tmp_path: Path) -> None:
    """A database is examined again after each write."""
    path = tmp_path / "mirror.db"
    sqlite3.connect(path).close()
    served = AsgiClient(Datasette([str(path)]))
    assert served.get("/mirror.json?sql=select+1").status_code == 200
    fill_mixed(path).store.close()
    assert served.get("/mirror.json", params={"sql": READ}).status_code == 403


def test_an_unreadable_file_is_not_a_missing_mirror(tmp_path: Path) -> None:
    """Clients believe a 404: a damaged file is 503, and its tables are closed."""
    path = tmp_path / "mirror.db"
    fill_public(path).store.close()
    served = AsgiClient(Datasette([str(path)]))
    for name in ("mirror.db-wal", "mirror.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    path.write_bytes(b"no database" * 1000)
    assert served.get("/2.0/repositories/jespern").status_code == 503
    assert served.get("/mirror/repositories.json").status_code != 200


def test_a_waiting_query_returns_no_private_rows_committed_meanwhile(public_db: FixtureDb) -> None:
    """While all threads are busy, queries are admitted, private rows committed, and the queries run."""
    datasette = client_of(public_db.path).datasette

    async def ask() -> list[Any]:
        (database,) = mirrors(datasette)
        current_visitor.set(auth.ActorVisitor(None))
        gate = threading.Event()
        assert not await auth.is_closed(datasette, None, database.name)
        blocking = [database.execute_fn(lambda _: gate.wait(20)) for _ in range(THREADS["sql"])]
        busy = [asyncio.create_task(one) for one in blocking]
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(database.execute(READ)) for _ in range(20)]
        await asyncio.sleep(0)
        public_db.repositories([HIDDEN])
        gate.set()
        await asyncio.gather(*busy)
        return await asyncio.gather(*waiting, return_exceptions=True)

    answers = asyncio.run(ask())
    assert {type(answer) for answer in answers} == {Forbidden}


def test_streaming_csv_ends_before_private_rows_committed_meanwhile(public_db: FixtureDb) -> None:
    """Every page of a stream is checked when it is read."""
    copy_rows(public_db, 40)
    pages = {"max_returned_rows": 50, "default_page_size": 50}
    datasette = Datasette([str(public_db.path)], settings=pages)
    query = b"_stream=1&_sort=id"
    path = "/mirror/repositories.csv"
    sent = bytearray()

    async def send(message: dict[str, Any]) -> None:
        if not sent and message.get("body"):
            public_db.repositories([HIDDEN])
        sent.extend(message.get("body", b""))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query,
        "headers": [(b"host", b"localhost")], "scheme": "http", "http_version": "1.1", "client": None,
    }  # fmt: skip
    asyncio.run(datasette.app()(scope, receive, send))
    assert b"jespern/django-piston" in sent
    assert b"arriving" not in sent.lower()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> FixtureDb:
    """A file without private rows, from a crawl with a token."""
    filled = fill_public(tmp_path_factory.mktemp("told") / "mirror.db")
    for at, name in ((SEEN, "elsewhere/parent"), (LATER, "elsewhere/parent-2")):
        fork = repository("jespern/fork", parent_uuid="{elsewhere}", parent_full_name=name)
        filled.repositories([fork], at=at)
    filled.members(owner("jespern"), [owner("mallory", display_name="Mallory M", kind="user")])
    with filled.store.transaction() as connection:
        for kind in ("row", "page", "workspace", "members"):
            failure = Failure(kind, f"odd-name-{kind}", "untold-error", place="https://example.com/odd-name")
            Failures(connection, filled.upstream_id).save(failure, from_text(LATER))
    return filled


def addresses() -> list[str]:
    """Every table, view, stored query and page, and indirect SQL."""
    tables = [
        "members",
        "users",
        "sync_failures",
        "repositories",
        "cursors",
        "changes",
        "recent_changes",
        "freshness",
    ]
    statements = (
        "select * from members m join users u on u.id = m.user_id",
        "with users as (select * from main.users) select * from users",
        "select (select group_concat(display_name) from users)",
        "select * from users where username like 'mall%25'",
        "select username from users order by display_name",
        "select max(subject), min(error) from sync_failures",
        "select coalesce(parent_full_name, parent_uuid) from repositories",
        "select sql, * from sqlite_master left join sync_failures",
        "select * from repositories natural join sync_failures",
        "select old || new from changes",
        "select * from (select * from sync_failures union all select * from sync_failures)",
    )
    suffixes = ("", ".json?_labels=on", ".csv?_labels=on")
    pages = (
        "/", "/-/search?q=fork", "/-/mirror-status", "/-/changes", "/-/changes.atom", "/-/questions",
        "/-/metrics", "/-/health", "/jespern", "/jespern/fork",
    )  # fmt: skip
    return [
        *(f"/mirror/{table}{suffix}" for table in tables for suffix in suffixes),
        *(f"/mirror/users/{number}.json" for number in range(1, 12)),
        *(f"/mirror/{name}.json" for name in QUERIES),
        *(f"/mirror.json?sql={statement.replace(' ', '+').replace('|', '%7C')}" for statement in statements),
        "/mirror/users.json?_facet=username", "/mirror/users.json?username__contains=mall", "/mirror.db",
        *pages, "/2.0/workspaces/jespern/members", "/2.0/repositories/jespern/fork",
        "/2.0/repositories/jespern", "/1.0/repositories/jespern/fork/events", "/1.0/users/jespern",
    ]  # fmt: skip


@pytest.mark.parametrize("immutable", [False, True])
def test_strangers_read_no_members_parents_or_failures(
    told: FixtureDb, tmp_path: Path, *, immutable: bool
) -> None:
    """A file without private rows stays open, except for what the APIs refuse to strangers."""
    path = tmp_path / "mirror.db"
    copy = sqlite3.connect(path)
    told.store.connection.backup(copy)
    copy.execute("ANALYZE")  # whose statistics may hold samples of the rows
    copy.execute("INSERT INTO extras VALUES ('repository', 1, 'x', 0, '1')")
    copy.commit()
    copy.close()
    served = AsgiClient(Datasette([], immutables=[str(path)])) if immutable else client_of(path)
    for address in addresses():
        answer = served.get(address)
        assert answer.status_code < 500, address
        assert not [word for word in UNTOLD if word in answer.content], address
    for address in SHOWN:
        assert b"jespern/django-piston" in served.get(address).content
    for table in ("members", "extras"):  # no link to a row that nobody may see
        assert "None,None" not in served.get(f"/mirror/{table}").text
    assert served.json("/mirror.json?sql=select+count(*)+as+n+from+members&_shape=array")[0]["n"] == 1
    statistics = served.json("/mirror.json?sql=select+tbl,idx,stat+from+sqlite_stat1&_shape=arrays")["rows"]
    assert statistics
    assert {value for row in statistics for value in row} == {None}


GUESSES = (
    "select username from main.users",
    "select id from main.users indexed by users_username",
    "with users as (select username from main.users) select username from users",
    "with mirror_shown_users as (select username from main.users) select username from mirror_shown_users",
    'with [Mirror_Shown_users] as (select username from main.users) select * from "mirror_shown_users"',
    "select new from main.changes",
    "select owner from main.recent_changes",
    "select username from main.owners_and_more",
    "select username from (select 1 as username) full join main.users using (username)",
    'select username from (select 1 as username) natural full join "main".users',
    "select user_id from (select 1 as user_id) full join members using(user_id)",
    "select parent_uuid from (select 1 as parent_uuid) full join [Repositories]/**/Using(parent_uuid)",
    "select user_id from (select 1 as user_id) full join members using \ufeff(user_id)",
    "select user_id from (select 1 as user_id)\ufeffnatural\t\ufefffull join members",
    "select user_id from (select 1 as user_id) natural--\nfull join members",
    "select user_id from (select 1 as user_id) full join members using/**/(user_id)",
)
"""Refused: they go round the views that show owners, or read columns for which SQLite asks no authorizer."""

PROBES = (
    "select count(*) from users where case when username like 'mall%' then json('no json') else 1 end",
    "select count(*) from users where abs(case username when 'mallory' then -9223372036854775808 else 1 end)",
    "select count(*) from users left join (select * from users order by username) u using (username)",
    "select count(*) from changes where case when new like 'mall%' then json('no json') else 1 end",
    "select count(*) from users where case when id = 6 and kind > '' then json('no json') else 1 end",
    "select count(*) from projects where case upstream_id when 1 then json('no json') else 1 end",
)
"""Fail where SQLite judges a hidden row before the condition that hides it."""


@pytest.mark.parametrize("are_members", [True, False])
def test_strangers_see_owners_but_no_members(tmp_path: Path, *, are_members: bool) -> None:
    """In tables, labels, views, queries and SQL; former members stay hidden too."""
    filled = fill_public(tmp_path / "mirror.db")
    filled.members(owner("jespern"), [owner("mallory", display_name="Mallory M", kind="user")])
    with filled.store.transaction() as connection:
        for old, name in (("jn", "jespern"), ("mallory-1", "mallory")):
            connection.execute(
                """INSERT INTO changes (at, kind, old, new, user_id) VALUES
                    ('2026-11-02', 'owner_renamed', ?, ?, (SELECT id FROM users WHERE username = ?))""",
                (old, name, name),
            )
        connection.execute(
            """INSERT INTO projects (upstream_id, owner_id, uuid, key, first_seen_at, last_seen_at)
                VALUES (1, 1, '{empty}', 'EMPTY', '', '')"""
        )
        connection.execute("CREATE VIEW owners_and_more AS SELECT id, username, created_at FROM users")
        if not are_members:
            connection.execute("DELETE FROM members")
    served = client_of(tmp_path / "mirror.db")
    shown = [
        served.get(path).text
        for path in (
            "/mirror/users.json", "/mirror/users.json?username=jespern&is_owner=1&upstream_id=1",
            "/mirror/users/1",
            "/mirror/repositories.json?_labels=on", "/mirror/owners_and_more.json", "/mirror/changes.json",
            "/mirror/recent_changes.json?_facet=owner", "/mirror/newest_tags.json?owner=jespern",
            "/mirror/who_owns_most.json", "/mirror/users.csv?_stream=on",
        )
    ]  # fmt: skip
    assert [("jespern" in text.replace("username=jespern", ""), "mallory" in text) for text in shown] == [
        (True, False) for _ in shown
    ]
    assert served.get("/mirror/users/6.json").status_code == 404
    for statement in GUESSES:
        assert served.get("/mirror.json", params={"sql": statement}).status_code == 400, statement
    for statement in PROBES:
        assert served.get("/mirror.json", params={"sql": statement}).status_code == 200, statement
    (row,) = served.json("/mirror.json?sql=select+count(*)+as+n+from+users&_shape=array")
    assert row["n"] == 5
    assert served.json("/.json")["mirror"]["name"] == "mirror"  # for which Datasette looks for 'USING FTS'


def test_sql_shows_no_hidden_changes_where_no_row_is_private(tmp_path: Path) -> None:
    """A repository that lost its name may have had the refs of a private one, which is not mirrored."""
    filled = fill_public(tmp_path / "mirror.db")
    with filled.store.transaction() as connection:
        connection.executemany(
            """INSERT INTO changes (id, at, kind, ref, new, repository_id)
                VALUES (?, '2026-11-02', 'branch_created', ?, 'aa', 1)""",
            [(98, "top-secret"), (99, "shown")],
        )
        connection.execute("UPDATE repositories SET public_from = 98 WHERE id = 1")
    served = client_of(tmp_path / "mirror.db")
    for path in ("changes.json", "recent_changes.json", "changed_this_week.json?days=9999"):
        answer = served.get(f"/mirror/{path}")
        assert ("top-secret" in answer.text, "shown" in answer.text) == (False, True), path


REFS_IN_SQL = (
    "select r.full_name, b.name from repositories r left join branches b on b.repository_id = r.id",
    "select r.full_name, t.name, t.message from repositories r left join tags t on t.repository_id = r.id",
    "select name from tags where name like '%secret' or name = '0.2.3' order by name",
    "select repository_id, name, target_hash from branches union all select 5, name, 'x' from tags",
    "select name from seen_refs",
    "select name from search_ref_names",
    "select name from search_ref_pending",
    "select group_concat(ref), group_concat(new) from changes",
    "select r.full_name, mirror_refs_at(r.id, '2026-11-04') from repositories r",
    "select mirror_refs('s'), mirror_refs_count('top-secret'), mirror_refs_repositories('ababab')",
)
"""What tells of refs."""


def test_sql_hides_refs_where_pages_hide_them(tmp_path: Path) -> None:
    """Those that a private namesake of a public repository may have had, until they are read again."""
    path, lost = tmp_path / "mirror.db", "mcatalbas/codeigniter"
    filled = fill_public(path)
    secret = [hg_ref(kind, "top-secret", "5", target_hash="ab" * 20) for kind in ("branch", "tag")]
    filled.refs(lost, secret, at=LATER)
    with filled.store.transaction() as connection:
        connection.execute("INSERT INTO seen_refs VALUES (?, 'tag', 'top-secret')", (filled.id_of(lost),))
        hide_history(connection, [filled.id_of(lost)], with_refs=True)
    filled.store.finish_search_index()
    served = client_of(path)
    pages = ("tags.csv", "branches.json", "newest_tags.json?owner=mcatalbas")
    found = [served.get(f"/mirror/{page}").text for page in pages]
    for sql in REFS_IN_SQL:
        found.append(str(ask(path, ANONYMOUS, sql, limit=50).rows))
        found.append(str(served.json("/mirror.json", params={"sql": sql})["rows"]))
    assert "0.2.3" in str(found)
    assert "top-secret" not in str(found)
    assert "abab" not in str(found)
    unknown = {"sql": f"select mirror_refs_at('{lost}', '2026-11-04') as refs", "_shape": "array"}
    assert served.json("/mirror.json", params=unknown) == [{"refs": None}]
    filled.refs(lost, secret, at="2026-11-03T00:00:00.000000Z")
    assert "top-secret" in str(served.json("/mirror.json", params={"sql": REFS_IN_SQL[0]})["rows"])


def test_a_token_reads_private_rows(told: FixtureDb, tmp_path: Path) -> None:
    """A token without a user reads members, parents and failures, on pages too."""
    path = tmp_path / "mirror.db"
    copy = sqlite3.connect(path)
    told.store.connection.backup(copy)
    copy.close()
    served = client_of(path)
    filled = FixtureDb(path)
    headers = bearer(tokens.create(filled.store, "all", "read"))
    seen = b"".join(
        served.get(address, headers=headers).content
        for address in ("/mirror/users.json", "/mirror/repositories.json", "/mirror/sync_failures.json")
    )
    assert not [word for word in (b"mallory", b"elsewhere/parent", b"odd-name") if word not in seen]
    assert b"odd-name" in served.get("/-/mirror-status", headers=headers).content
    joined = {"sql": "select count(*) from main.branches join main.repositories r using (name)"}
    assert served.get("/mirror.json", params=joined, headers=headers).status_code == 200


def test_attached_files_are_closed_too(tmp_path: Path, mixed_path: Path) -> None:
    """`--crossdb` reaches every file, under any name."""
    shutil.copy(mixed_path, tmp_path / "other.db")
    served = AsgiClient(Datasette([str(mixed_path), str(tmp_path / "other.db")], crossdb=True))
    assert isinstance(served.datasette.databases["_memory"], GuardedDatabase)
    answer = served.get("/_memory.json", params={"sql": "select full_name from other.repositories"})
    assert answer.status_code == 403


@pytest.mark.parametrize("immutable", [False, True])
def test_a_replaced_file_is_read(tmp_path: Path, *, immutable: bool) -> None:
    """In every thread: rows that a newer copy made private are hidden, and its new rows are shown."""
    path, newer = tmp_path / "mirror.db", tmp_path / "newer.db"
    fill_public(path).store.close()
    closed_file(newer)
    served = AsgiClient(Datasette([], immutables=[str(path)])) if immutable else client_of(path)
    for _ in range(8):  # so that each thread has opened the file
        assert served.get("/mirror.json", params={"sql": READ}).status_code == 200
        assert served.get("/2.0/repositories/mcatalbas/copy").status_code == 404
    newer.replace(path)
    for _ in range(8):
        assert served.get("/mirror.json", params={"sql": READ}).status_code == 403
        assert served.get("/mirror/repositories.json").status_code == 403
        assert served.get("/2.0/repositories/mcatalbas/copy").status_code == 200


def test_a_statement_that_cannot_succeed_is_no_busy_mirror(public_db: FixtureDb) -> None:
    """A column that somebody renamed does not come back in a moment."""
    served = AsgiClient(Datasette([str(public_db.path)]))
    path = "/2.0/repositories/mcatalbas/codeigniter"
    assert served.get(path).status_code == 200
    public_db.store.connection.execute("ALTER TABLE repositories RENAME COLUMN scm TO kind_of_vcs")
    answer = served.get(path)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, False)
    assert "the log says why" in answer.text
