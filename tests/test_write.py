"""Writes over real HTTP to the sandbox: done by the upstream, and visible in the mirror at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest
from upstream_fakes import MemoryLedger
from write_harness import WriteHarness, writable

from mirror.model import RepositorySettings
from mirror.operations import Control, SyncOptions, sync_all
from mirror.sandbox import Fault, repository_refs, visible_repositories
from mirror.store import Store
from mirror.store.lock import sync_lock
from mirror.store.repositories import Look
from mirror.store.writes import OLDEST_PAGE
from mirror.times import to_text, utc_now
from mirror.upstream.connect import connect
from mirror.write import PassThrough


@pytest.fixture
def made(tmp_path: Path) -> Iterator[WriteHarness]:
    """A mirrored sandbox."""
    with writable(tmp_path, refs="api") as found:
        yield found


def test_a_created_repository_is_there_at_once(made: WriteHarness) -> None:
    """Upstream, row, change, audit and search agree, with two requests, one of them for refs."""
    settings = RepositorySettings(
        name="New Idea", is_private=True, description="An idea", scm="git", has_wiki=True
    )
    row = made.writes.create("jespern", settings, by="a token")
    assert row.full_name == "jespern/new-idea"
    assert made.asked() == 2
    there = made.upstream("jespern/new-idea")
    assert (there["name"], there["is_private"], there["description"]) == ("New Idea", True, "An idea")
    here = made.row("jespern/new-idea")
    assert here is not None
    assert (here["uuid"], here["name"], here["is_private"]) == (there["uuid"], "New Idea", 1)
    assert (here["has_wiki"], here["scm"]) == (1, "git")
    assert (here["refs_stale"], here["refs_synced_at"] is None) == (0, False)
    assert made.changes() == [("created", None, "jespern/new-idea")]
    assert made.written() == [("a token", "create", "jespern/new-idea", "done")]
    assert made.found("new-id") == ["jespern/new-idea"]


def test_the_owner_is_found_in_any_case(made: WriteHarness) -> None:
    """A namespace is written as the mirror has it."""
    assert (
        made.writes.create("JesperN", RepositorySettings(name="Typed"), by="x").full_name == "jespern/typed"
    )


def test_a_given_slug_is_used(made: WriteHarness) -> None:
    """It may differ from the slug of the name."""
    row = made.writes.create("erik", RepositorySettings(name="The Name"), slug="address", by="x")
    assert (row.full_name, row.name) == ("erik/address", "The Name")


@pytest.mark.parametrize(("owner", "scm"), [("jespern", "hg"), ("erik", "git"), ("1team", "hg")])
def test_a_missing_scm_is_that_of_the_last_repository(tmp_path: Path, owner: str, scm: str) -> None:
    """API 1.0 used the kind of the owner's newest repository, and hg without one."""
    with writable(tmp_path, workspaces=("jespern", "erik", "1team")) as made:
        if owner == "1team":
            for full_name in [row[0] for row in made.rows("SELECT full_name FROM repositories")]:
                if full_name.startswith("1team/"):
                    made.writes.delete(full_name, by="x")
        assert made.writes.create(owner, RepositorySettings(name="Fresh"), by="x").scm == scm


def test_cloud_repositories_are_created_as_git(tmp_path: Path) -> None:
    """Bitbucket Cloud creates nothing else any more."""
    with writable(tmp_path, kind="cloud") as made:
        assert made.writes.create("jespern", RepositorySettings(name="Fresh"), by="x").scm == "git"


def test_a_partial_update_changes_the_given_fields(made: WriteHarness) -> None:
    """Others stay, upstream and in the mirror."""
    before = made.row("jespern/django-piston")
    made.writes.update("jespern/django-piston", RepositorySettings(website="https://example.com/"), by="x")
    after = made.row("jespern/django-piston")
    assert before is not None
    assert after is not None
    moved = {column for column, value in after.items() if value != before[column]}
    assert moved == {"website", "updated_at", "last_seen_at", "refs_stale"}
    assert made.upstream("jespern/django-piston")["website"] == "https://example.com/"
    assert [kind for kind, _, _ in made.changes()] == ["updated"]
    assert made.written() == [("x", "update", "jespern/django-piston", "done")]


def test_a_new_name_changes_the_slug(made: WriteHarness) -> None:
    """Identity, refs and history stay with the row; the old name is not found."""
    before = made.row("jespern/django-piston")
    row = made.writes.update("jespern/django-piston", RepositorySettings(name="Piston Two"), by="x")
    assert row.full_name == "jespern/piston-two"
    after = made.row("jespern/piston-two")
    assert before is not None
    assert after is not None
    assert (after["id"], after["uuid"]) == (before["id"], before["uuid"])
    assert made.row("jespern/django-piston") is None
    assert ("renamed", "jespern/django-piston", "jespern/piston-two") in made.changes()
    assert made.rows(f"SELECT count(*) FROM tags WHERE repository_id = {after['id']}") == [(4,)]
    assert made.found("piston-two") == ["jespern/piston-two"]


def test_a_repository_is_made_private_and_public(made: WriteHarness) -> None:
    """At once in the mirror too."""
    made.writes.update("jespern/django-piston", RepositorySettings(is_private=True), by="x")
    assert made.rows("SELECT is_private FROM repositories WHERE slug = 'django-piston'") == [(1,)]
    made.writes.update("jespern/django-piston", RepositorySettings(is_private=False), by="x")
    assert [kind for kind, _, _ in made.changes()] == ["made_private", "made_public"]


def test_a_deleted_repository_is_a_tombstone(made: WriteHarness) -> None:
    """The row and its refs stay, with the reason; searches do not find it."""
    made.writes.delete("jespern/django-piston", by="x")
    assert made.upstream("jespern/django-piston") is None
    row = made.row("jespern/django-piston")
    assert row is not None
    assert row["gone_reason"] == "deleted"
    assert made.rows(f"SELECT count(*) FROM tags WHERE repository_id = {row['id']}") == [(4,)]
    assert made.changes() == [("deleted", "jespern/django-piston", "deleted")]
    assert made.written() == [("x", "delete", "jespern/django-piston", "done")]
    assert "jespern/django-piston" not in made.found("django-piston")


def test_an_update_brings_back_nothing_that_was_deleted_meanwhile(made: WriteHarness) -> None:
    """Its answer may arrive after that of a deletion that another client asked for."""

    def late(request: httpx.Request) -> httpx.Response:
        with httpx.Client() as client:
            answer = client.send(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
            )
        if request.method == "PUT":
            made.writes.delete("jespern/django-piston", by="another")
        return answer

    writes = PassThrough(made.config, environ=made.environ, transport=httpx.MockTransport(late))
    writes.update("jespern/django-piston", RepositorySettings(description="new"), by="one")
    assert made.upstream("jespern/django-piston") is None
    row = made.row("jespern/django-piston")
    assert row is not None
    assert row["gone_reason"] == "deleted"
    assert [action for _, action, *_ in made.written()] == ["delete", "update"]


def test_a_deleted_name_can_be_used_again(made: WriteHarness) -> None:
    """The new repository is another one."""
    made.writes.delete("jespern/django-piston", by="x")
    made.writes.create("jespern", RepositorySettings(name="django-piston", scm="git"), by="x")
    row = made.row("jespern/django-piston")
    assert row is not None
    assert (row["scm"], row["deleted_at"]) == ("git", None)
    assert made.rows("SELECT count(*) FROM repositories WHERE slug = 'django-piston'") == [(2,)]


def test_a_fork_knows_its_parent(made: WriteHarness) -> None:
    """It exists under its new owner, with the row of its parent."""
    row = made.writes.fork("jespern/django-piston", "erik", RepositorySettings(name="Erik's Piston"), by="x")
    assert row.full_name == "erik/eriks-piston"
    here, parent = made.row("erik/eriks-piston"), made.row("jespern/django-piston")
    assert here is not None
    assert parent is not None
    assert here["parent_id"] == parent["id"]
    assert (here["scm"], here["refs_stale"], here["is_private"]) == ("hg", 0, 0)
    assert made.changes() == [("created", None, "erik/eriks-piston")]
    assert made.written() == [("x", "fork", "erik/eriks-piston", "done")]


def test_a_fork_of_a_private_repository_is_private(made: WriteHarness) -> None:
    """By default nothing is published."""
    made.writes.fork("jespern/arriving", "erik", RepositorySettings(name="copy"), by="x")
    assert made.upstream("erik/copy")["is_private"] is True
    made.writes.fork("jespern/arriving", "erik", RepositorySettings(name="shown", is_private=False), by="x")
    assert made.upstream("erik/shown")["is_private"] is False


def test_a_repository_that_lost_its_name_becomes_a_hint(made: WriteHarness) -> None:
    """The mirror's holder of the new name was renamed or deleted, so it is requested."""
    made.sandbox.do("rename", "jespern/django-piston", name="Moved On")
    made.sandbox.do("delete", "jespern/arriving")
    made.writes.create("jespern", RepositorySettings(name="django-piston"), by="x")
    made.writes.create("jespern", RepositorySettings(name="arriving"), by="x")
    assert made.row("jespern/moved-on") is not None
    rows = made.rows("SELECT gone_reason FROM repositories WHERE full_name = 'jespern/arriving' ORDER BY id")
    assert rows == [("deleted",), (None,)]


def test_two_writes_at_once_succeed(made: WriteHarness) -> None:
    """Threads do not disturb each other."""
    names = [f"idea-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(
                lambda name: made.writes.create("jespern", RepositorySettings(name=name), by=name), names
            )
        )
    for name in names:
        assert made.row(f"jespern/{name}") is not None
    assert sorted(row[0] for row in made.written()) == names


def test_a_sync_does_not_block_writes(made: WriteHarness) -> None:
    """A write does not need the lock of a sync; SQLite's lock is short."""
    with sync_lock(made.path):
        made.writes.create("jespern", RepositorySettings(name="meanwhile"), by="x")
    assert made.row("jespern/meanwhile") is not None


def test_an_older_page_does_not_undo_a_write(made: WriteHarness) -> None:
    """A page that was requested before a write and is saved after it restores nothing."""
    upstream, _ = connect(
        made.config.upstreams[0], ledger=MemoryLedger(), wait=lambda *_: None, environ=made.environ
    )
    with closing(upstream):
        page = upstream.fetch_repositories("jespern", "created", None)
    made.writes.delete("jespern/arriving", by="x")
    made.writes.update("jespern/django-piston", RepositorySettings(is_private=True, name="Hidden"), by="x")
    with Store(made.path) as store:
        store.save_page(1, page.rows, Look(to_text(utc_now()), with_refs=True))
    gone, hidden = made.row("jespern/arriving"), made.row("jespern/hidden")
    assert gone is not None
    assert hidden is not None
    assert (gone["gone_reason"], hidden["is_private"]) == ("deleted", 1)
    late = to_text(utc_now() + 2 * OLDEST_PAGE)
    with Store(made.path) as store:
        store.save_page(1, page.rows, Look(late, with_refs=True))
    back = made.row("jespern/arriving")
    assert back is not None
    assert back["deleted_at"] is None  # a page of later: whoever deleted it has restored it


def test_a_write_does_not_disturb_a_running_sync(tmp_path: Path) -> None:
    """In any order of pages and writes, the next sync equals the upstream."""
    with writable(tmp_path, size=450, workspaces=("jespern", "big")) as made:
        made.sandbox.add_fault(Fault("slow", where="listing", nth=None, seconds=0.05))
        config = made.seeing_everything()
        full = SyncOptions(full=True)
        sync = threading.Thread(target=lambda: sync_all(config, full, Control()))
        sync.start()
        number = 0
        while sync.is_alive() and number < 30:
            made.writes.create("big", RepositorySettings(name=f"idea-{number}"), by="x")
            if number % 3 == 0:
                made.writes.delete(f"big/idea-{number}", by="x")
            if number % 3 == 1:
                made.writes.update(f"big/idea-{number}", RepositorySettings(name=f"better-{number}"), by="x")
            number += 1
        sync.join()
        assert number > 3
        made.sandbox.clear_faults()
        made.sync()
        here = made.rows("SELECT full_name FROM repositories WHERE deleted_at IS NULL ORDER BY 1")
        there = {row["full_name"] for row in visible_repositories(made.sandbox.world)}
        assert {row[0] for row in here} == {
            name for name in there if name.partition("/")[0] in ("jespern", "big")
        }


def test_a_write_hides_no_change_of_address(made: WriteHarness) -> None:
    """The next sync must know that saved links lead to the old one."""
    (before,) = made.rows("SELECT url, refs FROM upstreams")
    url = made.served.url.replace("127.0.0.1", "localhost")
    moved = msgspec.structs.replace(made.config.upstreams[0], url=url, refs="none")
    config = msgspec.structs.replace(made.config, upstreams=(moved,))
    made.writer(config).create("jespern", RepositorySettings(name="idea"), by="x")
    assert made.rows("SELECT url, refs FROM upstreams") == [before]


def test_a_fork_has_its_refs_at_once(made: WriteHarness) -> None:
    """They will be read again, because upstreams may copy refs later."""
    made.writes.fork("jespern/django-piston", "erik", RepositorySettings(name="piston"), by="x")
    there = {ref["name"] for ref in repository_refs(made.sandbox.world, "erik/piston")}
    assert {name for (name,) in made.rows(_REFS_OF_PISTON)} == there != set()
    assert made.rows("SELECT count(*) FROM cursors WHERE stream LIKE 'marked:%'") == [(1,)]
    made.sync()
    assert made.rows("SELECT count(*) FROM cursors WHERE stream LIKE 'marked:%'") == [(0,)]
    assert {name for (name,) in made.rows(_REFS_OF_PISTON)} == there


_REFS_OF_PISTON = """SELECT x.name FROM repositories r JOIN
    (SELECT repository_id, name FROM branches UNION ALL SELECT repository_id, name FROM tags) x
    ON x.repository_id = r.id WHERE r.full_name = 'erik/piston'"""


@pytest.mark.parametrize("what", ["500", "html", "empty"])
def test_refs_that_cannot_be_read_at_once_are_not_made_up(made: WriteHarness, what: str) -> None:
    """The fork exists; its refs stay unread until the next run, not an empty list."""
    made.sandbox.add_fault(Fault(what, where="refs", nth=None))
    made.writes.fork("jespern/django-piston", "erik", RepositorySettings(name="piston"), by="x")
    row = made.row("erik/piston")
    assert row is not None
    assert row["refs_synced_at"] is None
    made.sandbox.clear_faults()
    made.sync()
    assert made.rows(_REFS_OF_PISTON) != []
