"""One repository is one row: rows without a uuid, and files with duplicate rows of earlier versions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_client import client_of
from sync_harness import Edited, ShortPages, SyncHarness, assert_matches_sandbox, crawling

from mirror.sandbox import visible_repositories

ONE: dict[str, Any] = {"workspaces": ("jespern",)}
SOME = "jespern/django-piston"
Edit = Callable[[dict[str, Any]], None]


def editing(crawl: SyncHarness, edit: Edit, *, name: str = SOME) -> None:
    """Edit every answer that contains a repository."""

    def edited(_: str, body: Any) -> Any:
        for row in [body, *body.get("values", [])]:
            if row.get("full_name") == name:
                edit(row)
        return body

    crawl.transport = Edited(edited)


def living(crawl: SyncHarness, name: str = SOME) -> list[Any]:
    """List identity and privacy of the living rows of a name."""
    return crawl.rows(
        "SELECT uuid, is_private FROM repositories WHERE full_name = ? AND deleted_at IS NULL", name
    )


def second_row(crawl: SyncHarness, uuid: str, *, is_private: int = 0) -> None:
    """Write a duplicate row of a repository into the file, with refs and changes, as earlier versions did."""
    with crawl.writing() as connection:
        row = connection.execute("SELECT * FROM repositories WHERE full_name = ?", (SOME,))
        values = dict(zip([column[0] for column in row.description], row.fetchone(), strict=True))
        values |= {"id": 900_000, "uuid": uuid, "is_private": is_private}
        marks = ", ".join("?" * len(values))
        connection.execute(
            f"INSERT INTO repositories ({', '.join(values)}) VALUES ({marks})", list(values.values())
        )
        connection.execute(
            "INSERT INTO branches (repository_id, name, target_hash) VALUES (900000, 'secret', 'ab')"
        )
        connection.execute("INSERT INTO changes (at, repository_id, kind) VALUES ('2026', 900000, 'updated')")


@pytest.mark.parametrize(
    "uuid",
    [
        None,
        "",
        " ",
        "x" * 100_000,
        "{" + "0" * 100_000 + "}",
        "none",
        "name:jespern/django-piston",
        "{\0}",
        "{\ufffd}",
        "{\N{CYRILLIC SMALL LETTER A}}",
        7,
        ["{a}"],
    ],
)
def test_a_row_without_a_uuid_is_a_failure_of_that_row(tmp_path: Path, uuid: object) -> None:
    """It makes no duplicate row that would stay public when the repository is made private."""
    with crawling(tmp_path, synced=True, network=True, **ONE) as (sandbox, crawl):
        (before,) = living(crawl)
        sandbox.do("make_private", SOME)
        editing(crawl, lambda row: row.update(uuid=uuid))
        summary = crawl.sync(full=True)
        assert (summary.state, summary.exit_code) == ("incomplete", 1)
        assert SOME in str(summary.failures)
        assert living(crawl) == [before]
        crawl.transport = None
        assert crawl.sync(full=True, later=86_400).exit_code == 0
        assert living(crawl) == [(before[0], 1)]
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


@pytest.mark.parametrize("key", ["workspace", "owner"])
def test_a_first_listing_with_missing_uuids_is_refused(tmp_path: Path, key: str) -> None:
    """If only one row and its owner lack a uuid, also in the first listing."""
    with crawling(tmp_path, network=True, **ONE) as (sandbox, crawl):

        def bare(row: dict[str, Any]) -> None:
            row.update(uuid=None)
            row["workspace"].pop("uuid", None)
            row["owner"].pop("uuid", None)

        editing(crawl, bare if key == "owner" else lambda row: row.update(workspace={}, owner={}))
        for _ in range(2):
            assert crawl.sync().exit_code == 1
            assert living(crawl) == []
            assert crawl.rows("SELECT kind, subject FROM sync_failures") == [("row", f"jespern: {SOME}")]
        crawl.transport = None
        crawl.sync(full=True)
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_another_form_of_the_same_uuid_is_the_same_repository(tmp_path: Path) -> None:
    """Without braces, in capitals, or with spaces around."""
    with crawling(tmp_path, synced=True, network=True, **ONE) as (sandbox, crawl):
        forms: list[Edit] = [
            lambda row: row.update(uuid=row["uuid"].upper()),
            lambda row: row.update(uuid=row["uuid"].strip("{}")),
            lambda row: row.update(uuid=f" {row['uuid']} "),
        ]
        for form in forms:
            editing(crawl, form)
            assert crawl.sync(full=True).exit_code == 0
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_two_repositories_with_one_uuid_are_reported(tmp_path: Path) -> None:
    """The first of a page is kept, private if the other is; the second is a failure."""
    with crawling(tmp_path, synced=True, network=True, **ONE) as (sandbox, crawl):
        first, other = (
            row[0] for row in crawl.rows("SELECT full_name FROM repositories ORDER BY created_at LIMIT 2")
        )
        ((uuid, _),) = living(crawl, first)
        sandbox.do("make_private", other)
        editing(crawl, lambda row: row.update(uuid=uuid), name=other)
        summary = crawl.sync(full=True)
        assert summary.exit_code == 1
        assert any(first in failure.error and other in failure.subject for failure in summary.failures)
        assert living(crawl, first) == [(uuid, 1)]


class Renamed(ShortPages):
    """Lists a repository again, under another name, on the last page of each listing."""

    def __init__(self, first: bool, second: bool) -> None:
        super().__init__(2)
        self._private = (first, second)
        self._row: dict[str, Any] | None = None
        self.asked = 0
        self.alone: bool | int = 503
        """Whether the repository is private when it is asked for by itself; or a status."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Edit listings and the repository's own answer."""
        answer = super().handle_request(request)
        answer.read()
        body = answer.json()
        for row in body.get("values", []):
            if row.get("full_name") == SOME:
                row["is_private"], self._row = self._private[0], row
        if "next" not in body and self._row is not None and self._row not in body.get("values", []):
            other = {"full_name": "jespern/other", "slug": "other", "is_private": self._private[1]}
            body["values"].append(self._row | other)
            self._row = None
        if "full_name" in body:
            self.asked += 1
            if self.alone not in (True, False):
                return httpx.Response(self.alone)
            body["is_private"] = self.alone
        return httpx.Response(answer.status_code, json=body)


@pytest.mark.parametrize("known_before", [True, False])
@pytest.mark.parametrize("pages", [(True, False), (False, True)])
def test_a_uuid_under_two_names_in_one_listing_stays_private(
    tmp_path: Path, pages: tuple[bool, bool], known_before: bool
) -> None:
    """Private if either page says so, until the repository itself is requested."""
    with crawling(tmp_path, network=True, **ONE, refs="none") as (sandbox, crawl):
        if known_before:
            crawl.sync()
        (uuid,) = (row["uuid"] for row in visible_repositories(sandbox.world) if row["full_name"] == SOME)
        crawl.transport = transport = Renamed(*pages)
        for alone, expected in ((503, 1), (True, 1), (False, 0), (404, 1)):
            transport.alone, transport.asked = alone, 0
            crawl.sync(full=True)
            assert transport.asked
            assert crawl.rows("SELECT is_private FROM repositories WHERE uuid = ?", uuid) == [(expected,)]


@pytest.mark.parametrize("uuid", ["name:jespern/django-piston", "", "x" * 100_000, "capitals"])
@pytest.mark.parametrize("by", ["sync", "verify"])
def test_a_duplicate_row_of_an_older_version_is_merged(tmp_path: Path, uuid: str, by: str) -> None:
    """The next sync or `verify --repair` merges them: one row, as private as upstream."""
    with crawling(tmp_path, **ONE) as (sandbox, crawl):
        sandbox.do("make_private", SOME)
        crawl.sync()
        ((real, _),) = living(crawl)
        second_row(crawl, real.upper() if uuid == "capitals" else uuid)
        if by == "sync":
            assert crawl.sync().exit_code == 0
        else:
            summary, findings = crawl.verify(repair=True)
            assert summary.exit_code == 0
            assert [(found.repository, found.mended) for found in findings] == [(SOME, True)]
        crawl.sync()
        assert living(crawl) == [(real, 1)]
        assert crawl.rows("SELECT * FROM branches WHERE name = 'secret'") == []
        assert crawl.rows("PRAGMA foreign_key_check") == []
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_hidden_data_of_a_duplicate_row_stays_hidden(tmp_path: Path) -> None:
    """Merging a private duplicate into a public row publishes none of its changes."""
    with crawling(tmp_path, synced=True, **ONE) as (_, crawl):
        second_row(crawl, "name:jespern/django-piston", is_private=1)
        crawl.sync()
        shown = (
            "SELECT c.id FROM changes c JOIN repositories r ON r.id = repository_id WHERE c.id > public_from"
        )
        assert crawl.rows(shown) == []


def test_hidden_data_of_a_duplicate_row_closes_sql(tmp_path: Path) -> None:
    """SQL is open to strangers as long as nothing was ever private; what the duplicate recorded was."""
    with crawling(tmp_path, secret=None, synced=True, **ONE) as (_, crawl):
        served = client_of(crawl.path)
        assert served.get("/mirror/changes.json").status_code == 200
        second_row(crawl, "name:jespern/django-piston", is_private=1)
        crawl.sync()
        assert [is_private for _, is_private in living(crawl)] == [0]
        assert served.get("/mirror/changes.json").status_code == 403
        assert served.get("/-/r/jespern/django-piston").status_code == 200


@pytest.mark.parametrize("identity", ["name:jespern/django-piston", "x" * 100_000, "{" + "0" * 100_000 + "}"])
def test_a_row_that_never_had_a_uuid_gets_it(tmp_path: Path, identity: str) -> None:
    """A repository that was only known by name keeps its row and history."""
    with crawling(tmp_path, synced=True, **ONE) as (sandbox, crawl):
        row_id = crawl.one("SELECT id FROM repositories WHERE full_name = ?", SOME)
        with crawl.writing() as connection:
            connection.execute("UPDATE repositories SET uuid = ? WHERE id = ?", (identity, row_id))
        sandbox.do("make_private", SOME)
        assert crawl.sync().exit_code == 0
        assert [is_private for _, is_private in living(crawl)] == [1]
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_a_workspace_of_an_older_version_gets_its_uuid(tmp_path: Path) -> None:
    """Its owner was known by name: repositories, members and cursor move to the one with a uuid."""
    with crawling(tmp_path, synced=True, **ONE) as (sandbox, crawl):
        place = json.loads(crawl.one("SELECT value FROM cursors WHERE stream = 'workspace:jespern'"))
        with crawl.writing() as connection:
            connection.execute(
                "UPDATE users SET uuid = 'name:jespern' WHERE uuid = ?", (place["owner_uuid"],)
            )
            connection.execute(
                "UPDATE cursors SET value = ? WHERE stream = 'workspace:jespern'",
                (json.dumps(place | {"owner_uuid": "name:jespern"}),),
            )
        sandbox.do("delete", SOME)
        crawl.sync(full=True)
        assert SOME in crawl.gone()
        assert crawl.one("SELECT count(*) FROM users WHERE uuid LIKE 'name:%'") == 0
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_an_upstream_without_uuids_is_mirrored_by_names(tmp_path: Path) -> None:
    """API 2.0 of a mirror of API 1.0 has none, and nothing is refused."""
    with crawling(tmp_path, network=True, **ONE, secret=None) as (_, crawl):

        def bare(_: str, body: Any) -> Any:
            return json.loads(json.dumps(body), object_hook=lambda found: found | {"uuid": None})

        crawl.transport = Edited(bare)
        assert [crawl.sync(full=True).failures for _ in range(2)] == [[], []]
        assert crawl.one("SELECT count(*) FROM repositories WHERE uuid NOT LIKE 'name:%'") == 0
