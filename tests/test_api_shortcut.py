"""What makes API reads fast: they skip the router and threads, and give the same answers."""

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from asgi_client import basic, bearer, client_of
from callers import MixedMirror
from datasette import hookimpl
from datasette.plugins import pm

from mirror.serve.guarded_database import GuardedDatabase, mirrors
from mirror.serve.quick_reads import AT_ONCE_MS, SLOW_SECONDS, QuickReads
from mirror.serve.state import served
from mirror.store import Store, tokens

PATHS = (
    "/1.0/repositories/jespern/django-piston", "/1.0/repositories/jespern/django-piston/tags?format=xml",
    "/1.0/repositories/nobody/nothing", "/1.0/user?callback=f", "/!api/1.0/repositories/?name=django",
    "/2.0/repositories?pagelen=5", "/2.0/repositories/jespern", "/2.0/nothing", "/2.0/repositories/%ff/x",
    "/rest/api/1.0/projects/JESPERN/repos", "/rest/api/latest/repos",
)  # fmt: skip


class AsksHeaders:
    """A plugin that recognises callers by a header, which only the router asks it for."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl  # type: ignore[untyped-decorator]
    def actor_from_request(self, request: Any) -> dict[str, Any] | None:
        """Recognise one sender, by the number of a token."""
        self.asked += 1
        number = int(request.headers.get("x-token", 0))
        return {"id": "it", "mirror": "mirror", "mirror_ids": [], "mirror_token": number} if number else None


@contextmanager
def plugin() -> Iterator[AsksHeaders]:
    """Install it."""
    one = AsksHeaders()
    pm.register(one)
    try:
        yield one
    finally:
        pm.unregister(one)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("sender", ["anonymous", "token", "bad", "trusted"])
def test_answers_past_the_router_are_those_that_it_gives(
    mixed: MixedMirror, method: str, sender: str
) -> None:
    """Equal status, headers and body, byte for byte, for found, hidden, refused and invalid ones."""
    headers = {
        "anonymous": {},
        "token": bearer(mixed.tokens["user"]),
        "bad": bearer("mir_bad"),
        "trusted": basic("jespern", "any"),
    }[sender]
    client = mixed.trusting if sender == "trusted" else mixed.served
    directly = [client(method, path, headers=headers) for path in PATHS]
    with plugin() as asked:
        by_router = [client(method, path, headers=headers) for path in PATHS]
    assert asked.asked == len(PATHS)
    for one, other in zip(directly, by_router, strict=True):
        same = [name for name in other.headers if name != "age"]
        assert [one.headers[name] for name in same] == [other.headers[name] for name in same]
        assert (one.status_code, one.content) == (other.status_code, other.content)


def test_a_plugin_that_recognises_senders_is_asked(mixed: MixedMirror) -> None:
    """A caller whom it maps to a token for everything sees private repositories."""
    with closing(sqlite3.connect(mixed.path)) as connection:
        hidden = "SELECT full_name FROM repositories WHERE is_private AND deleted_at IS NULL"
        (private,) = connection.execute(hidden).fetchone()
        (number,) = connection.execute("SELECT id FROM api_tokens WHERE name = 'reader'").fetchone()
    path, known = f"/2.0/repositories/{private}", {"X-Token": str(number)}
    with plugin():
        assert mixed.served.get(path, headers=known).status_code == 200
        assert mixed.served.get(path).status_code == 404
    assert mixed.served.get(path, headers=known).status_code == 404


class Refuses:
    """A plugin that refuses all requests, in front of the application."""

    __name__ = "refuses"

    @hookimpl  # type: ignore[untyped-decorator]
    def asgi_wrapper(self) -> Any:
        """Answer in the place of what it wraps."""

        async def refusal(scope: Any, receive: Any, send: Any) -> None:
            del scope, receive
            await send({"type": "http.response.start", "status": 418, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return lambda _: refusal


def test_a_plugin_that_wraps_the_application_is_not_passed(mixed: MixedMirror) -> None:
    """The one that was registered last is nearest to the router, behind this program's middleware."""
    one = Refuses()
    pm.register(one)
    try:
        assert client_of(mixed.path).get("/2.0/repositories").status_code == 418
    finally:
        pm.unregister(one)


def test_reads_without_threads_wait_for_a_lock(mixed_path: Path) -> None:
    """With `num_sql_threads` 0, all reads share one connection, which must keep waiting."""
    client = client_of(mixed_path)
    client.datasette.executor = None
    asked = "PRAGMA busy_timeout"
    database = next(mirrors(client.datasette))
    waits = [asyncio.run(database.read(lambda connection: connection.execute(asked).fetchone()))]
    assert client.get("/2.0/repositories").status_code == 200
    waits.append(asyncio.run(database.read(lambda connection: connection.execute(asked).fetchone())))
    assert waits[0] == waits[1] != (0,)


class FakeDatabase:
    """A database that records how it is read."""

    def __init__(self, *, fails: bool = False) -> None:
        self.reads, self._fails = list[str](), fails

    def refuse_outdated(self) -> None:
        """It lacks no changes."""

    def read_at_once(self, fn: Any) -> Any:
        """Read here."""
        self.reads.append("here")
        if self._fails and len(self.reads) > 1:  # the first one opens it
            raise sqlite3.OperationalError("interrupted")
        return fn(None)

    async def read(self, fn: Any) -> Any:
        """Read in a thread."""
        self.reads.append("thread")
        return fn(None)


@pytest.mark.parametrize("fields", ["", "&fields=values.full_name,values.description,values.is_private"])
def test_a_page_that_was_asked_for_before_reads_no_repository_again(mixed_path: Path, fields: str) -> None:
    """Three statements; any change in the file shows at once, only to callers who may see it."""
    said, client = list[str](), client_of(mixed_path)
    page = f"/2.0/repositories?pagelen=100{fields}"
    with Store(mixed_path) as store:
        token = bearer(tokens.create(store, "all"))
    database = next(mirrors(client.datasette))
    served(client.datasette).quick_reads = QuickReads(lambda: 0.0, milliseconds=3000)
    client.get(page, headers=token)
    asyncio.run(database.execute_write_fn(lambda _: None))  # once it is saved that the token was used
    for headers in ({}, token):
        first = client.get(page, headers=headers)
        database.read_at_once(lambda connection: connection.set_trace_callback(said.append))
        assert client.get(page, headers=headers).content == first.content
        database.read_at_once(lambda connection: connection.set_trace_callback(None))
    selects = [sql for sql in said if sql.startswith("SELECT") and "api_tokens" not in sql]
    assert len([sql for sql in selects if "r.created_at, r.id" in sql]) == 2
    assert not [sql for sql in selects if "r.description" in sql]
    seen = {one["full_name"]: one for one in client.json(page)["values"]}
    changed, hidden = list(seen)[:2]
    with closing(sqlite3.connect(mixed_path)) as writer, writer:
        writer.execute("UPDATE repositories SET description = 'new' WHERE full_name = ?", (changed,))
        writer.execute("UPDATE repositories SET is_private = 1 WHERE full_name = ?", (hidden,))
    strangers = {one["full_name"]: one for one in client.json(page)["values"]}
    holders = {one["full_name"]: one for one in client.json(page, headers=token)["values"]}
    assert strangers[changed]["description"] == holders[changed]["description"] == "new"
    assert (hidden in strangers, holders[hidden]["is_private"]) == (False, True)
    assert set(holders) > set(strangers)


def read(reads: QuickReads, database: FakeDatabase, kind: str) -> Any:
    """Read something that takes the time that it may take."""
    return asyncio.run(reads.read(cast("GuardedDatabase", database), kind, lambda _, limit: limit, 3000))


def test_quick_reads_use_no_thread_and_slow_ones_do() -> None:
    """A kind of read that was slow uses a thread for a while; others do not."""
    again = 2.0 + SLOW_SECONDS
    moments = iter([0.0, 0.001, 1.0, 2.0, again - 0.1, again, again, again, 13.0, 13.0])
    reads, database = QuickReads(lambda: next(moments)), FakeDatabase()
    found = [read(reads, database, "a") for _ in range(4)]
    assert found == [AT_ONCE_MS, AT_ONCE_MS, 3000, AT_ONCE_MS]
    assert read(reads, database, "b") == AT_ONCE_MS
    assert database.reads == ["here", "here", "here", "thread", "here", "here"]


def test_a_read_that_fails_here_is_done_in_a_thread() -> None:
    """If the SQL took too long or the file was locked; the thread reports any other error."""
    database = FakeDatabase(fails=True)
    assert read(QuickReads(), database, "a") == 3000
    assert database.reads == ["here", "here", "thread"]


def test_common_reads_use_no_thread(mixed: MixedMirror) -> None:
    """A repository, its refs, a page of repositories; a search uses one."""
    used, datasette = list[str](), mixed.served.datasette

    class Watched(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            used.append("thread")
            return super().submit(*arguments, **options)

    server, before = served(datasette), datasette.executor
    server.quick_reads, datasette.executor = QuickReads(lambda: 0.0, milliseconds=3000), Watched(1)
    try:
        name = "jespern/django-piston"
        for path in (
            f"1.0/repositories/{name}", f"1.0/repositories/{name}/tags", f"2.0/repositories/{name}",
            "2.0/repositories?pagelen=100", "2.0/repositories/jespern",
            "rest/api/latest/projects/JESPERN/repos/django-piston",
        ):  # fmt: skip
            mixed.served.get(f"/{path}")
        assert used == []
        assert mixed.served.get("/1.0/repositories/?name=django").status_code == 200
        assert used == ["thread"]
    finally:
        datasette.executor.shutdown()
        datasette.executor = before
