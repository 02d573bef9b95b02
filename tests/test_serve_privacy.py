"""No private byte is shown to callers who may not see it: every address, every kind of caller."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from callers import STRANGERS, WITHOUT_CREDENTIAL, MixedMirror
from datasette.app import Datasette
from fixtures_db import JESPERN, LATER, PISTON, SECRETS, SEEN, FixtureDb, fill_mixed, hg_ref, repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.model import Project
from mirror.serve.connections import is_local
from mirror.serve.stored_queries import QUERIES
from mirror.serve.table_metadata import TABLES
from mirror.store import tokens
from mirror.store.repositories import Look
from mirror.store.runs import Failure, Failures
from mirror.times import from_text

SQL = "select+group_concat(full_name)||group_concat(description)+from+repositories"
OPEN = (
    "/-/index",
    "/-/mirror-assets/mirror.css",
    "/.json",
    "/-/metadata",
    "/-/metadata.json",
    "/-/versions.json",
    "/-/plugins.json",
    "/-/plugins.json?all=1",
    "/-/settings.json",
    "/-/threads.json",
    "/-/databases",
    "/-/databases.json",
    "/-/actor.json",
    "/-/logout",
    "/-/webhook/cloud",
    "/-/health",
    "/-/metrics",
    "/-/permissions",
    "/-/messages",
    "/-/allow-debug",
    "/-/patterns",
    "/-/mirror-login",
    "/-/auth-token?token=x",
    "/-/static/app.css",
    "/favicon.ico",
    "/_internal",
    "/_internal/tables.json",
    "/_memory",
    "/nothing-here",
    "/mirror/nothing-here",
)
"""Addresses that may answer anybody, with nothing of a private row."""
PAGES = (
    "/",
    "/-/search",
    "/-/search?gone=1&visibility=private&q=r",
    "/-/search/options?q=r&gone=1",
    "/-/search.json?size=1000&gone=1",
    "/-/search.csv?gone=1",
    "/-/refs",
    "/-/refs?gone=1&q=a",
    "/-/refs.json?size=1000&gone=1",
    "/-/refs.json?q=m&owner=brodie",
    "/-/r/jespern/django-piston",
    "/-/r/jespern/shown",
    "/-/r/mcatalbas/copy",
    *(f"/-/r?id={number}" for number in range(1, 12)),
    "/-/u/jespern",
    "/-/u/brodie",
    *(f"/-/u?id={number}" for number in range(1, 10)),
    "/-/changes",
    "/-/changes?kind=unexpected",
    "/-/unexpected",
    "/-/changes?since=2000-01-01",
    "/-/changes.atom",
    "/-/mirror-status",
    "/-/questions",
    "/-/inventory",
    "/-/search.xml",
    "/-/search/suggestions?q=r&gone=1",
    "/-/search.json?q=soon&in=description",
    "/-/changes.atom?owner=brodie",
    "/-/changes.atom?owner=jespern",
    "/-/inventory?owner=brodie",
    "/-/inventory?after=brodie/a&id=1",
    "/-/inventory.csv",
    "/-/inventory.csv?owner=jespern",
    "/-/search?q=arrivnig",
    "/-/search?q=brodie/hg-projcet",
)
"""Addresses that show everybody what they may see; to a trusted user, that includes what is their own."""
GUARDED = (
    "/mirror",
    "/mirror.json",
    "/mirror.db",
    f"/mirror?sql={SQL}",
    f"/mirror.json?sql={SQL}",
    f"/mirror.csv?sql={SQL}",
    *(f"/mirror/{table}{suffix}" for table in TABLES for suffix in ("", ".json", ".csv")),
    *(f"/mirror/{table}.json?_labels=on" for table in ("changes", "sync_failures", "branches", "tags")),
    *(f"/mirror/{query}{suffix}" for query in QUERIES for suffix in ("", ".json?_shape=array", ".csv")),
    "/mirror/api_tokens.json",
    "/mirror/sqlite_master.json",
    "/mirror/REPOSITORIES.json",
    "/mirror/repositories/6",
    "/mirror/repositories/6.json",
    "/mirror/repositories.json?_facet=name&_search=arriving",
    "/mirror/repositories.json?_where=is_private",
    "/mirror/users.json?_through=%7B%22table%22%3A%22repositories%22%2C%22column%22%3A%22id%22%2C%22value%22%3A6%7D",
)
"""Addresses that need a token once the file holds a private row."""


def _assert_nothing_private(content: bytes, told: str) -> None:
    seen = [secret for secret in SECRETS if secret.lower() in content.lower()]
    assert not seen, f"{told} shows {seen}"


@pytest.mark.parametrize("stranger", STRANGERS)
def test_strangers_see_no_private_byte(mixed: MixedMirror, stranger: str) -> None:
    """Tables, SQL, stored queries, downloads and Datasette's own pages, in every format."""
    served, how = mixed.stranger(stranger)
    for path in GUARDED:
        where, _, query = path.partition("?")
        options = dict(how)
        if "params" in options:
            where, options = f"{where}?{query}&_token={options['params']['_token']}", {}
        elif query:
            where = path
        answer = served.get(where, **options)
        assert answer.status_code in ((403, 404) if stranger in WITHOUT_CREDENTIAL else (401,)), path
        _assert_nothing_private(_without_the_question(answer.content), path)
    for path in (*OPEN, *(PAGES if stranger != "trusted user" else ())):
        options = {} if "?" in path and "params" in how else how
        _assert_nothing_private(served.get(path, **options).content, path)


LATEST = "2026-11-03T12:00:00.000000Z"
APIS = (
    *(f"/1.0/users/{name}{more}" for name in ("jespern", "brodie", "mcatalbas") for more in ("", "/events")),
    "/1.0/repositories/jespern/django-piston/followers",
    *(
        f"/2.0/{what}/{name}"
        for what in ("users", "workspaces")
        for name in ("jespern", "brodie", "mcatalbas")
    ),
    *(f"/{what}/ins" for what in ("1.0/users", "2.0/users", "2.0/workspaces", "2.0/repositories")),
    "/2.0/users/%7Bins-uuid%7D",
    "/2.0/workspaces",
    "/2.0/workspaces/jespern/projects",
    "/2.0/workspaces/jespern/projects/TOOLS",
    "/2.0/repositories?pagelen=100&sort=-updated_on",
    "/2.0/repositories/jespern?q=is_private=true",
    "/2.0/repositories/jespern/django-piston/watchers",
    *(f"/2.0/{what}" for what in ("snippets", "pullrequests/x", "hook_events")),
    "/rest/api/1.0/projects?limit=1000",
    "/rest/api/1.0/projects/~jespern",
    "/rest/api/1.0/users",
    "/rest/api/1.0/repos?limit=1000",
)
"""Addresses of APIs whose age, order or count could depend on private rows."""


def _add_private_rows(filled: FixtureDb) -> None:
    """Read only private things after everything else, or before they were made public."""
    late: dict[str, Any] = {
        "is_private": True,
        "description": "x" * 100_000,
        "project": Project(key="TOOLS", uuid="{tools}"),
    }
    rows = [repository("jespern/late", JESPERN, **late), repository("mcatalbas/late", **late)]
    filled.repositories([*rows, repository("brodie/late", **late)], at=LATEST)
    filled.refs("jespern/late", [hg_ref("tag", "v9", "9")], at=LATEST)
    filled.failure("mcatalbas/late")
    inside = 0  # the first of all upstreams
    with filled.store.transaction() as connection:
        row = filled.store.save_upstream("inside", "datacenter", "https://inside.example")
        connection.execute("UPDATE upstreams SET id = ? WHERE id = ?", (inside, row))
    hidden = [repository("ins/ide", is_private=True)]
    filled.store.save_page(inside, hidden, Look(LATEST, with_refs=True))
    with filled.store.transaction() as connection:
        connection.execute(
            "UPDATE repositories SET first_seen_at = ? WHERE slug = 'shown'", (LATEST[:8] + "01",)
        )


VOLATILE = re.compile(
    rb'"csrftoken" value="[^"]*"|=2\d{3}-\d\d-\d\dT[\d%A:.]+Z|[\d.]+ ms\b|answer_seconds.*|nonce[-=][\w"-]+'
)
"""What depends on the time of a request, or is random."""


def _seen(served: AsgiClient, path: str, memento: str) -> tuple[int, bytes, bytes]:
    """Return status, headers and body of an answer, as far as requests may be compared."""
    answer = served.get(path, headers={"Accept-Datetime": memento} if memento else {})
    headers = {name: value for name, value in answer.headers.items() if name not in ("age", "set-cookie")}
    return answer.status_code, VOLATILE.sub(b"", repr(headers).encode()), VOLATILE.sub(b"", answer.content)


def test_private_rows_change_no_answer_to_strangers(tmp_path: Path) -> None:
    """Neither bodies nor headers: counts, ages, sizes, names of upstreams, health, the past."""
    twins = list[AsgiClient]()
    for name in ("one", "other"):
        filled = fill_mixed(tmp_path / name / "mirror.db")
        piston = repository("jespern/tools", JESPERN, project=Project(key="TOOLS", uuid="{tools}"))
        filled.repositories([piston], at=LATER)
        if name == "other":
            _add_private_rows(filled)
        filled.store.finish_search_index()
        filled.store.close()
        twins.append(client_of(filled.path))
    then = "Mon, 02 Nov 2026 13:00:00 GMT"
    pages = (path for path in PAGES if "?id=" not in path)
    asked = [(path, "") for path in (*APIS, *pages, "/-/databases.json", "/-/health", "/-/metrics")]
    asked += [
        ("/2.0/repositories/jespern/django-piston", then),
        ("/-/r/jespern/shown?at=2026-11-02T13:00", ""),
    ]
    for path, memento in asked:
        one, other = (_seen(twin, path, memento) for twin in twins)
        assert one == (other[0], other[1], other[2].replace(b"/other/", b"/one/")), path
        if path.startswith("/2.0/users/mcatalbas"):
            assert SEEN.encode() in one[1]


def _without_the_question(content: bytes) -> bytes:
    """Remove the address that a page links back to, which the caller sent."""
    return re.sub(rb'(?:value|href)="[^"]*"', b"", content)


@pytest.mark.parametrize("holder", ["read", "write"])
def test_holders_of_a_token_see_everything(mixed: MixedMirror, holder: str) -> None:
    """The same addresses answer with the private rows."""
    as_bearer, as_basic = bearer(mixed.tokens[holder]), basic("whoever", mixed.tokens[holder])
    # Who asks is found out before any address is looked at, so each address is asked in one of the ways.
    for path in GUARDED:
        if path.startswith(("/mirror.db", "/mirror/sqlite_master", "/mirror/REPO")):
            continue
        headers = as_bearer if holder == "read" else as_basic
        assert mixed.served.get(path, headers=headers).status_code in (200, 302), path
    for headers in (as_bearer, as_basic):
        assert b"Arriving soon" in mixed.served.get("/mirror/repositories.json", headers=headers).content


def test_every_route_is_tested(mixed: MixedMirror) -> None:
    """A new route must be added to one of the lists above."""
    asked = [path.partition("?")[0] for path in (*OPEN, *PAGES, *GUARDED)]
    later = ("1\\.0", "2\\.0", "^/rest", ":memory:", "static-plugins", "/-/config")
    for pattern, _ in mixed.served.datasette._routes():
        if not any(part in pattern.pattern for part in later):
            assert any(pattern.match(path) for path in asked), pattern.pattern


def test_introspection_shows_no_row_counts(mixed: MixedMirror) -> None:
    """The list of databases shows path and size of the file, as Datasette does, and no counts."""
    (database,) = mixed.served.json("/-/databases.json")
    assert set(database) == {"name", "route", "path", "size", "is_mutable", "is_memory", "hash"}
    assert mixed.served.json("/.json") == {}
    assert mixed.served.json("/-/actor.json") == {"actor": None}


def test_errors_of_the_upstream_are_for_those_who_see_everything(mixed_db: FixtureDb) -> None:
    """They may name what is private, as where a redirect leads; others see that it failed."""
    moved = Failure(
        "refs", "{u}", "https://x.example/secret/place: 403", mixed_db.id_of(PISTON.full_name), 403
    )
    with mixed_db.store.transaction() as connection:
        Failures(connection, mixed_db.upstream_id).save(moved, from_text(LATER))
    made = make_tokens(mixed_db.store)
    served = client_of(mixed_db.path)
    for token, is_told in ((None, False), ("user", False), ("read", True)):
        page = served.get("/-/mirror-status", headers=bearer(made[token]) if token else None).text
        failures = page.partition('id="failures"')[2]
        assert PISTON.full_name in failures
        assert ("secret/place" in failures, "answered 403" in failures) == (is_told, not is_told)
    mixed_db.store.close()


def test_a_file_without_private_rows_is_open_to_sql(public_path: Path) -> None:
    """Without a token; the tables of accounts stay closed."""
    served = client_of(public_path)
    assert served.get("/mirror/repositories.json").status_code == 200
    assert served.get(f"/mirror.json?sql={SQL}").status_code == 200
    assert served.get("/mirror/api_tokens.json").status_code == 403
    assert served.get("/mirror/api_tokens.csv").status_code == 403


@pytest.mark.parametrize("how", ["private", "gone", "once"])
def test_one_private_row_closes_sql_at_once(public_db: FixtureDb, how: str) -> None:
    """A running server notices the row of a sync: living, gone, or public again with a private past."""
    served = client_of(public_db.path)
    assert served.get("/mirror/repositories.json").status_code == 200
    public_db.repositories([repository("a/b", is_private=True)])
    if how == "gone":
        public_db.gone("a/b")
    if how == "once":
        public_db.repositories([repository("a/b")], at=LATER)
    assert served.get("/mirror/repositories.json").status_code == 403
    public_db.store.close()


def test_crossdb_queries_are_closed(mixed: MixedMirror) -> None:
    """Datasette's in-memory database with all files attached is closed like the files."""
    crossed = AsgiClient(Datasette([str(mixed.path)], crossdb=True))
    sql = "select+group_concat(full_name)+from+mirror.repositories"
    answer = crossed.get(f"/_memory.json?sql={sql}")
    assert answer.status_code == 403
    opened = crossed.get(f"/_memory.json?sql={sql}", headers=bearer(mixed.tokens["read"]))
    assert b"arriving" in opened.content


def test_plain_datasette_is_as_closed(mixed: MixedMirror) -> None:
    """The plugin has the same rules, also for immutable files; root is let in."""
    for how in ({"files": [str(mixed.path)]}, {"immutables": [str(mixed.path)]}):
        plain = AsgiClient(Datasette(**how))
        for path in ("/mirror/repositories.json", "/mirror.db", f"/mirror.json?sql={SQL}"):
            answer = plain.get(path)
            assert answer.status_code == 403, path
            _assert_nothing_private(answer.content, path)
        root = {"ds_actor": plain.datasette.sign({"a": {"id": "root"}}, "actor")}
        assert plain.get("/mirror/repositories.json", cookies=root).status_code == 200


def test_a_wrong_plugin_configuration_ends_the_start(mixed: MixedMirror) -> None:
    """A misspelt privacy setting must not be ignored."""
    metadata = {"plugins": {"bitbucket-mirror": {"trust_basic_usr": True}}}
    with pytest.raises(Exception, match="trust_basic_usr"):
        AsgiClient(Datasette([str(mixed.path)], metadata=metadata))


@pytest.mark.parametrize(
    ("client", "headers", "local"),
    [
        (("127.0.0.1", 1), {"host": "localhost:8001"}, True),
        (("127.0.0.1", 1), {"host": "127.0.0.1:8001"}, True),
        (("::1", 1), {"host": "[::1]:8001"}, True),
        (("127.0.0.1", 1), {"host": "evil.example:8001"}, False),
        (("127.0.0.1", 1), {"host": "localhost", "x-forwarded-for": "192.0.2.1"}, False),
        (("127.0.0.1", 1), {"host": "localhost", "via": "1.1 proxy"}, False),
        (("127.0.0.1", 1), {"host": "localhost", "x-forwarded-proto": "https"}, False),
        (("192.0.2.1", 1), {"host": "localhost"}, False),
        (None, {"host": "localhost"}, False),
        (("127.0.0.1", 1), {"host": "["}, False),
    ],
)
def test_trust_needs_a_local_connection(
    client: tuple[str, int] | None, headers: dict[str, str], *, local: bool
) -> None:
    """No trust through a proxy, a foreign host name, or from another machine."""
    assert is_local(client, headers) is local


def test_the_use_of_a_token_is_noted_and_its_secret_is_not(mixed_db: FixtureDb, capfd: Any) -> None:
    """The row has the time; the console shows nothing, not even in errors."""
    token = tokens.create(mixed_db.store, "noted", "read")
    served = client_of(mixed_db.path)
    for path in ("/mirror/repositories.json", "/mirror/nothing", "/mirror.json?sql=select+nonsense"):
        served.get(path, headers=bearer(token))
    for _ in range(100):
        if tokens.listed(mixed_db.store.connection)[0].last_used_at:
            break
        served.get("/-/versions.json")
    assert tokens.listed(mixed_db.store.connection)[0].last_used_at is not None
    out, err = capfd.readouterr()
    assert token not in out + err
    mixed_db.store.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.sampled_from(["view-table", "view-row", "view-query", "execute-sql", "insert-row", "made-up"]),
    actor=st.one_of(
        st.none(),
        st.dictionaries(
            st.sampled_from(["id", "mirror", "mirror_token", "mirror_user", "name", "allow"]),
            st.sampled_from(["root ", "mirror", "1", "reader", "jespern", "*"]),
        ),
    ),
    table=st.sampled_from(["repositories", "changes", "api_tokens", "users", "stale"]),
)
def test_an_actor_of_another_plugin_opens_nothing(
    mixed: MixedMirror, action: str, actor: dict[str, Any] | None, table: str
) -> None:
    """Only a token that this plugin recognises opens anything."""
    import asyncio

    resource: Any = "mirror" if action == "execute-sql" else ("mirror", table)
    if action == "view-query" and table != "stale":
        return
    allowed = mixed.served.datasette.permission_allowed(actor, action, resource, default=True)
    assert asyncio.run(allowed) is False


def test_the_fixture_holds_what_the_tests_look_for(mixed: MixedMirror) -> None:
    """Every secret is in the file, so not finding one proves something."""
    with sqlite3.connect(mixed.path) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    for secret in SECRETS:
        assert secret.decode() in dump.replace("''", "'"), secret
    assert PISTON.full_name in json.dumps(dump)


def test_strangers_see_no_owner_of_private_repositories_alone(tmp_path: Path) -> None:
    """Members are never shown; owners of only private repositories are shown to fellow members only."""
    filled = fill_mixed(tmp_path / "mirror.db")
    filled.members(repository("jespern/x").owner, [repository("mallory/x").owner])
    token = tokens.create(filled.store, "of mallory", "read", user="mallory")
    numbers = dict(filled.store.rows("SELECT username, id FROM users"))
    served = client_of(tmp_path / "mirror.db")
    for path in ("/2.0/users/mallory", "/2.0/users/%7Bmallory-uuid%7D", "/1.0/users/mallory", "/-/u/mallory"):
        missing = served.get(path.replace("mallory", "nobody-"))
        answer = served.get(path)
        assert answer.status_code == missing.status_code == 404, path
        assert answer.content == missing.content.replace(b"nobody-", b"mallory"), path
        assert served.get(path, headers=bearer(token)).status_code == 200, path
    for name in ("mallory", "brodie"):
        answer = served.get(f"/-/u?id={numbers[name]}")
        assert answer.status_code == 404
        assert re.sub(rb"\d+", b"", answer.content) == re.sub(rb"\d+", b"", served.get("/-/u?id=99").content)
    assert served.get("/-/u/brodie").status_code == 404
    assert served.get("/2.0/repositories/brodie").status_code == 200  # as upstream says of a namespace
    assert served.get("/-/u/mcatalbas").status_code == served.get("/1.0/users/ubernostrum").status_code == 200
