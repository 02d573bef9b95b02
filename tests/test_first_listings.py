"""What was not listed in full yet is never served as complete, nor taken so by a mirror of the mirror."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import JESPERN, SEEN, FixtureDb, owner
from live_server import serving
from test_api2_mirrored import synced

from mirror.store import Store, tokens
from mirror.store.crawl_state import Round, WorkspaceState
from mirror.store.cursors import Cursors
from mirror.store.runs import HIDDEN_MEMBERS, Failure, Failures, finish_run, start_run
from mirror.times import from_text, to_text, utc_now

NOW = to_text(utc_now())

LISTS = (
    "/1.0/repositories/jespern",
    "/1.0/users/jespern",
    "/2.0/repositories/jespern",
    "/2.0/repositories/%7Bjespern-uuid%7D",
    "/2.0/users/jespern/repositories",
    "/2.0/teams/jespern/repositories",
    "/2.0/workspaces/jespern/projects",
    "/2.0/workspaces/jespern/projects/KEY",
    "/rest/api/1.0/projects/jespern/repos",
)
MEMBERS = (
    "/2.0/workspaces/jespern/members",
    "/2.0/workspaces/jespern/members/jespern",
    "/2.0/workspaces/jespern/permissions",
    "/2.0/teams/jespern/members",
    "/rest/api/1.0/projects/jespern/permissions/users",
)
REPOSITORY = ("/1.0/repositories/{}/{}", "/2.0/repositories/{}/{}", "/rest/api/1.0/projects/{}/repos/{}")
WORKSPACE = (
    "/1.0/repositories/{}",
    "/2.0/workspaces/{}",
    "/2.0/repositories/{}",
    "/rest/api/1.0/projects/{}",
)


class PartlyListed:
    """A served mirror, and what its crawl has recorded of the workspace `jespern`."""

    def __init__(self, filled: FixtureDb) -> None:
        self.filled = filled
        self.tokens = make_tokens(filled.store)
        self.served: AsgiClient = client_of(filled.path)

    def workspace(self, **state: Any) -> None:
        """Save the state of the workspace."""
        with self.filled.store.transaction() as connection:
            found = WorkspaceState(owner_uuid="{jespern-uuid}", **state)
            Cursors(connection, self.filled.upstream_id).workspace("jespern").save(found, at=SEEN)

    def round(self, run_ends_as: str, *, at: str = NOW) -> None:
        """Save a round whose listings have not ended, and a run that ended."""
        with self.filled.store.transaction() as connection:
            Cursors(connection, self.filled.upstream_id).round.save(Round(began=at), at=at)
            run = start_run(connection, self.filled.upstream_id, "incremental", at=at)
            finish_run(connection, run, kind="full", state=run_ends_as, at=at, counts={}, error=None)

    def failed(self, status: int | None) -> None:
        """Note that the workspace `other` could not be read."""
        with self.filled.store.transaction() as connection:
            failure = Failure("workspace", "other", "no", status=status)
            Failures(connection, self.filled.upstream_id).save(failure, from_text(SEEN))

    def status(self, path: str, token: str | None = None) -> int:
        """Ask, and check what every such 503 says."""
        answer = self.served.get(path, headers=bearer(self.tokens[token]) if token else None)
        if answer.status_code == 503:
            assert "not been listed in full yet" in answer.text
            assert (answer.headers["retry-after"], answer.headers["x-mirror-listing"]) == (
                "60",
                "not read yet",
            )
        return answer.status_code


@pytest.fixture
def partly(mixed_db: FixtureDb) -> Iterator[PartlyListed]:
    """A mirror with private rows."""
    yield PartlyListed(mixed_db)
    mixed_db.store.close()


@pytest.mark.parametrize("path", LISTS)
def test_a_workspace_is_503_until_it_was_listed(partly: PartlyListed, path: str) -> None:
    """Its first rows are no list of what it owns. Once it was listed, a later listing changes nothing."""
    before = partly.status(path)
    partly.workspace()
    assert partly.status(path) == 503
    partly.workspace(cursor=SEEN)
    assert partly.status(path) == before
    partly.workspace(gone=True)
    assert partly.status(path) == before


@pytest.mark.parametrize("form", REPOSITORY)
def test_what_is_not_there_yet_is_not_called_missing(partly: PartlyListed, form: str) -> None:
    """Unknown and hidden repositories give the same 503; known ones and other workspaces stay as they are."""
    partly.workspace()
    missing, hidden = (
        partly.served.get(form.format("jespern", name)) for name in ("no-such-one", "arriving")
    )
    assert missing.status_code == 503
    assert (hidden.status_code, hidden.content) == (503, missing.content)
    then = {"Accept-Datetime": "Sun, 01 Nov 2026 13:00:00 GMT"}
    assert partly.served.get(form.format("jespern", "no-such-one"), headers=then).status_code == 503
    assert partly.served.get(form.format("mcatalbas", "no-such-one"), headers=then).status_code == 404
    assert partly.status(form.format("jespern", "django-piston")) == 200
    assert partly.status(form.format("mcatalbas", "no-such-one")) == 404


@pytest.mark.parametrize("form", WORKSPACE)
def test_no_name_is_unknown_before_the_first_round_has_ended(partly: PartlyListed, form: str) -> None:
    """A workspace whose turn has not come is no missing one; a run that came to its end knows them all."""
    assert partly.status(form.format("other")) == 404
    partly.round(
        "failed", at=to_text(utc_now() - timedelta(days=8))
    )  # of an upstream that is not used any more
    assert partly.status(form.format("other")) == 404
    partly.round("paused")
    assert partly.status(form.format("other")) == 503
    assert partly.status(form.format("mcatalbas")) == 200
    partly.round("incomplete")
    assert partly.status(form.format("other")) == 404


@pytest.mark.parametrize("form", WORKSPACE)
@pytest.mark.parametrize(("status", "seen"), [(503, 503), (None, 503), (403, 503), (404, 404)])
def test_a_workspace_that_could_not_be_read_is_503_for_the_operator(
    partly: PartlyListed, form: str, status: int | None, seen: int
) -> None:
    """Unless the upstream has none of that name. Others do not learn which names are configured."""
    partly.failed(status)
    assert partly.status(form.format("other"), "read") == seen
    assert partly.status(form.format("another"), "read") == 404
    assert partly.status(form.format("other")) == 404


def test_pages_say_what_was_not_listed(partly: PartlyListed) -> None:
    """That of the owner, and those that are not here; other owners' pages stay as they are."""
    said = "Not all repositories of this owner have been listed yet."
    later = "It may not have been listed yet."
    assert said not in partly.served.get("/-/u/jespern").text
    partly.workspace()
    assert said in partly.served.get("/-/u/jespern").text
    assert said not in partly.served.get("/-/u/mcatalbas").text
    for path in ("/-/r/jespern/no-such-one", "/-/r/jespern/arriving"):
        assert later in partly.served.get(path).text
    for path in ("/-/r/mcatalbas/no-such-one", "/-/u/other"):
        assert later not in partly.served.get(path).text
    partly.round("paused")
    assert later in partly.served.get("/-/u/other").text


@pytest.mark.parametrize("path", MEMBERS)
def test_members_that_were_not_read_are_not_none(partly: PartlyListed, path: str) -> None:
    """A credential with few scopes lists no members. They are 501, and 503 while the workspace is read."""
    refused = partly.served.get(path, headers=bearer(partly.tokens["read"]))
    assert (refused.status_code, refused.headers["x-mirror-listing"]) == (501, "not mirrored")
    assert "holds no members of this" in refused.text
    assert partly.served.get(path).status_code == 401
    partly.workspace()
    assert partly.status(path, "read") == 503
    partly.workspace(cursor=SEEN)
    partly.filled.members(JESPERN, [JESPERN])
    assert partly.status(path, "read") == 200


def test_a_project_may_have_no_members_of_its_own(partly: PartlyListed) -> None:
    """On Data Center rights may come from groups alone; where reading failed, nothing is known."""
    path = "/rest/api/1.0/projects/jespern/permissions/users"
    store, filled = partly.filled.store, partly.filled
    with store.transaction() as connection:
        connection.execute("UPDATE upstreams SET kind = 'datacenter'")
        connection.execute("DELETE FROM members")
    assert partly.served.get(path, headers=bearer(partly.tokens["read"])).status_code == 501
    filled.members(owner("mcatalbas"), [owner("mcatalbas")])
    found = partly.served.get(path, headers=bearer(partly.tokens["read"]))
    assert (found.status_code, found.json()["values"]) == (200, [])
    with store.transaction() as connection:
        failure = Failure(HIDDEN_MEMBERS, "JESPERN", "no", status=403)
        Failures(connection, filled.upstream_id).save(failure, from_text(SEEN))
    assert partly.served.get(path, headers=bearer(partly.tokens["read"])).status_code == 501


def test_a_mirror_of_a_mirror_goes_on_without_members(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """It notes that they are hidden, as where a Bitbucket refuses them, and does not ask again and again."""
    with Store(mixed_db.path) as store:
        token = tokens.create(store, "copier", "read")
    with serving(mixed_db.path) as address:
        (summary,) = synced(tmp_path / "copy.db", f"{address}/2.0", token, workspaces=("mcatalbas",))
    mixed_db.store.close()
    assert summary.counts.retries == 0
    with Store(tmp_path / "copy.db") as store:
        failures = store.rows("SELECT kind, status FROM sync_failures WHERE subject = 'mcatalbas'")
    assert failures == [("hidden members", 501)]
    assert ("mcatalbas/codeigniter",) in _names(tmp_path / "copy.db")


def test_a_mirror_of_a_mirror_takes_no_row_for_gone(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """While the other mirror is filled anew, the copy keeps what it has, without waiting and asking again."""
    partly, copy = PartlyListed(mixed_db), tmp_path / "copy.db"
    with Store(mixed_db.path) as store:
        token = tokens.create(store, "copier", "read")
    with serving(mixed_db.path) as address:
        synced(copy, f"{address}/2.0", token, workspaces=("jespern",))
        before = _names(copy)
        partly.filled.gone("jespern/django-piston")
        partly.workspace()
        (again,) = synced(copy, f"{address}/2.0", token, workspaces=("jespern",))
    assert _names(copy) == before
    assert ("jespern/django-piston",) in before
    assert [failure.status for failure in again.failures] == [503]
    assert again.counts.retries == 0
    mixed_db.store.close()


def test_states_of_listed_workspaces_are_not_decoded(partly: PartlyListed) -> None:
    """With thousands of workspaces, that would take longer than the answers to requests."""
    partly.workspace(cursor=SEEN)
    with partly.filled.store.transaction() as connection:
        Cursors(connection, partly.filled.upstream_id).workspace("begun").save(WorkspaceState(), at=SEEN)
        said = list[str]()
        connection.set_trace_callback(said.append)
        assert list(Cursors(connection, partly.filled.upstream_id).first_listings()) == []
        connection.set_trace_callback(None)
        (statement,) = said
        assert [value for (value,) in connection.execute(statement) if "jespern" in value] == []
        assert connection.execute(statement).fetchall()


def _names(path: Path) -> list[tuple[str]]:
    with Store(path) as store:
        return store.rows("SELECT full_name FROM repositories WHERE deleted_at IS NULL ORDER BY full_name")
