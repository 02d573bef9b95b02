"""What plugins of Datasette get of a mirror by other ways than SQL, and what they find around its answers."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of, run
from callers import MixedMirror
from datasette import hookimpl
from datasette.app import Datasette
from datasette.plugins import pm
from datasette.utils.asgi import Forbidden, Response
from fixtures_db import FixtureDb, fill_public

from mirror.serve.auth import STRANGER
from mirror.serve.guarded_database import mirrors
from mirror.serve.sql_access import Nobody, SqlVisitor, current_visitor
from mirror.store import tokens

READ = "SELECT full_name, description FROM repositories"


class Dumps:
    """A plugin with a page that reads by a function, as datasette-backup does, and asks for no permission."""

    __name__ = "dumps"

    @hookimpl  # type: ignore[untyped-decorator]
    def register_routes(self) -> list[tuple[str, Any]]:
        """Send all repositories, and the hashes of tokens."""

        async def dump(datasette: Datasette) -> Response:
            def read(connection: Any) -> list[list[Any]]:
                hashes = connection.execute("SELECT count(token_hash) FROM api_tokens").fetchone()
                return [[*row] for row in (*connection.execute(READ).fetchall(), hashes)]

            return Response.json(await datasette.get_database("mirror").execute_fn(read))

        return [("^/-/dump$", dump)]


class Notes:
    """A plugin around the application, which notes the names of headers as it gets them."""

    __name__ = "notes"

    def __init__(self) -> None:
        self.names = set[bytes]()

    @hookimpl(trylast=True)  # type: ignore[untyped-decorator]
    def asgi_wrapper(self) -> Any:
        """Pass everything on."""

        def around(application: Any) -> Any:
            async def noting(scope: Any, receive: Any, send: Any) -> None:
                async def sent(message: Any) -> None:
                    self.names |= {name for name, _ in message.get("headers", ())}
                    await send(message)

                await application(scope, receive, sent)

            return noting

        return around


@contextmanager
def beside(plugin: object) -> Iterator[None]:
    """Install a plugin."""
    pm.register(plugin)
    try:
        yield
    finally:
        pm.unregister(plugin)


def test_a_function_of_a_plugin_reads_as_the_visitor(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """Where SQL is closed to the visitor, the function is too; nobody gets hashes."""
    opened = tmp_path / "public" / "mirror.db"
    fill_public(opened).store.close()
    token = bearer(tokens.create(mixed_db.store, "whole"))
    with beside(Dumps()):
        served = client_of(mixed_db.path)
        assert served.get("/-/dump").status_code == 403
        read = served.get("/-/dump", headers=token).json()
        public = client_of(opened).get("/-/dump").json()
    assert len(read) > len(public) > 1
    assert read[-1] == public[-1] == [0]


@pytest.mark.parametrize("replaces", [False, True])
def test_a_copy_in_memory_is_closed_to_strangers(mixed_db: FixtureDb, *, replaces: bool) -> None:
    """A plugin may copy a mirror, or put the copy in its place: there, SQL has no limits."""
    served = client_of(mixed_db.path)
    token = bearer(tokens.create(mixed_db.store, "whole"))
    if replaces:
        served.datasette.remove_database("mirror")
    copy = served.datasette.add_memory_database("copied")
    with closing(copy.connect(write=True)) as made, closing(sqlite3.connect(mixed_db.path)) as source:
        source.backup(made)
        assert served.get("/copied.json", params={"sql": READ}).status_code == 403
        assert served.get("/copied/repositories.json").status_code == 403
        known = served.get("/copied/repositories.json", headers=token)
        assert known.status_code == (403 if replaces else 200)


def test_plugins_around_find_headers_in_lower_case(mixed: MixedMirror) -> None:
    """One that compresses replaces the length of a body; it would send two otherwise."""
    notes = Notes()
    with beside(notes):
        served = client_of(mixed.path)
        for path in (
            "/2.0/repositories",
            "/-/search.json?q=a",
            "/mirror/repositories",
            "/-/openapi/2.0.json",
        ):
            served.get(path)
    assert b"content-length" in notes.names
    assert {name.lower() for name in notes.names} == notes.names


def test_a_table_that_a_plugin_makes_disturbs_no_reads(mixed_path: Path) -> None:
    """SQLite opens virtual tables again after it, by statements that visitors may not run."""
    database = next(mirrors(client_of(mixed_path).datasette))

    def columns(connection: Any) -> int:
        return len(connection.execute("PRAGMA table_info(search_descriptions)").fetchall())

    async def ask() -> list[int]:
        before = await database.execute_fn(columns)
        await database.execute_write("CREATE TABLE saved_by_plugin (id INTEGER PRIMARY KEY)")
        return [before, *[await database.execute_fn(columns) for _ in range(8)]]

    assert set(run(ask())) == {1}


def test_a_read_that_is_refused_says_so(mixed_path: Path) -> None:
    """Where SQLite only says "not authorized", too: 403 in a request, else the reason."""
    database = next(mirrors(client_of(mixed_path).datasette))

    async def count(visitor: SqlVisitor) -> None:
        current_visitor.set(visitor)
        await database.execute("SELECT count(*) FROM repositories")

    with pytest.raises(Forbidden):
        run(count(STRANGER))
    with pytest.raises(sqlite3.DatabaseError, match="is closed to strangers, and so to reads outside"):
        run(count(Nobody()))


def test_own_queries_replace_stored_ones(public_path: Path) -> None:
    """Also after others have been added to them."""
    own = {"databases": {"mirror": {"queries": {"stale": "select 'mine' as whose"}}}}
    served = AsgiClient(Datasette([str(public_path)], metadata=own))
    for _ in range(2):
        assert served.json("/mirror/stale.json?_shape=array") == [{"whose": "mine"}]
        assert served.get("/mirror/biggest.json").status_code == 200
