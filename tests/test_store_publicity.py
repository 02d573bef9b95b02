"""A repository that was private and is public: strangers see nothing of the private time."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asgi_client import bearer, client_of
from fixtures_db import LATER, SEEN, FixtureDb, hg_ref, repository
from sync_harness import SyncHarness, crawling
from webhook_client import NEW, OLD, SOME, webhook_mirror

from mirror.sandbox import Fault, Sandbox
from mirror.store import Store, tokens
from mirror.store.changes import DESCRIBED, repository_changes
from mirror.store.cursors import Cursors
from mirror.store.repositories import Look
from mirror.store.schema import HIDDEN

NAME = "ubernostrum/django-profiles"
FRESH: dict[str, Any] = {"workspaces": ("ubernostrum",)}
SECRETS = ("acquire-initech", "PRIVATEWORDS", "old-secret")


def _told(path: Path, full_name: str, token: str | None = None) -> str:
    """Read everything that shows what changed of a repository."""
    served = client_of(path)
    headers = bearer(token) if token else {}
    owner = full_name.partition("/")[0]
    addresses = (
        f"/1.0/repositories/{full_name}/events?limit=100",
        f"/1.0/users/{owner}/events?limit=100",
        "/-/changes",
        "/-/changes.atom",
        f"/-/r/{full_name}",
        f"/-/u/{owner}",
        "/",
    )
    answers = [served.get(address, headers=headers) for address in addresses]
    assert [answer.status_code for answer in answers] == [200] * len(addresses)
    refs = r'<section aria-labelledby="(?:branches|tags)".*?</section>'  # what is there, not what changed
    return "\n".join(re.sub(refs, "", answer.text, flags=re.DOTALL) for answer in answers)


def _shown(path: Path, full_name: str) -> list[str]:
    """List the secrets that a stranger reads."""
    text = _told(path, full_name)
    return [secret for secret in SECRETS if secret in text]


def _token(path: Path) -> str:
    with Store(path) as store:
        return tokens.create(store, "any")


def _hide(sandbox: Sandbox) -> None:
    """Give a repository a private past."""
    sandbox.do("make_private", NAME)
    sandbox.do("create_branch", NAME, name="acquire-initech-deal")
    sandbox.do("edit", NAME, fields={"description": "PRIVATEWORDS: layoffs"})


def _publish(sandbox: Sandbox) -> None:
    """Let its owner clean up and publish it."""
    sandbox.do("delete_branch", NAME, name="acquire-initech-deal")
    sandbox.do("edit", NAME, fields={"description": "A nice library"})
    sandbox.do("make_public", NAME)


def _hidden(crawl: SyncHarness, name: str = NAME) -> bool:
    return bool(crawl.one("SELECT public_from FROM repositories WHERE full_name = ?", name) == HIDDEN)


def test_changes_of_the_private_time_stay_hidden(tmp_path: Path) -> None:
    """Neither its texts nor a branch deleted before it was published; token holders see them."""
    with crawling(tmp_path, synced=True, **FRESH) as (sandbox, crawl):
        _hide(sandbox)
        crawl.sync()
        _publish(sandbox)
        crawl.sync()
        assert _shown(crawl.path, NAME) == []
        told = _told(crawl.path, NAME, _token(crawl.path))
        assert "acquire-initech-deal" in told
        assert "PRIVATEWORDS" in told
        sandbox.do("create_branch", NAME, name="for-everybody")
        sandbox.do("edit", NAME, fields={"description": "A nicer library"})
        crawl.sync()
        told = _told(crawl.path, NAME)
        assert "for-everybody" in told
        assert "A nicer library" in told
        assert _shown(crawl.path, NAME) == []


def test_a_rename_during_publication_stays_hidden(tmp_path: Path) -> None:
    """One answer of the upstream has all three changes, like a PUT through the mirror."""
    filled = FixtureDb(tmp_path / "mirror.db")
    before = repository(
        "ann/old-secret", uuid="{it}", name="old-secret", is_private=True, description="PRIVATEWORDS"
    )
    filled.repositories([before], first=True)
    filled.repositories([repository("ann/nice", uuid="{it}", description="A nice library")], at=LATER)
    kinds = [row[0] for row in filled.store.rows("SELECT kind FROM changes ORDER BY id")]
    filled.store.close()
    assert kinds[-1] == "made_public"
    assert _shown(tmp_path / "mirror.db", "ann/nice") == []


def test_publication_is_recorded_after_the_other_changes() -> None:
    """A reader of `changes` alone can tell what was private before."""
    same = dict.fromkeys(("deleted_at", "last_seen_at", "gone_reason", "owner_id", "scm", "website"))
    same |= dict.fromkeys(("main_branch", "fork_policy", "parent_full_name", "has_issues", "has_wiki"))
    same |= dict.fromkeys(DESCRIBED)
    old = {**same, "full_name": "a/b", "name": "b", "description": "x", "is_private": 1, "project_key": None}
    new = {**old, "full_name": "a/c", "name": "c", "description": "y", "is_private": 0}
    kinds = [change.kind for change in repository_changes(1, old, new)]
    assert kinds == ["renamed", "updated", "made_public"]


def test_unreadable_refs_keep_the_history_hidden(tmp_path: Path) -> None:
    """For any time: they would be compared with those of the private time."""
    with crawling(tmp_path, synced=True, **FRESH) as (sandbox, crawl):
        _hide(sandbox)
        crawl.sync()
        _publish(sandbox)
        sandbox.add_fault(Fault("500", where="refs", nth=None))
        for _ in range(3):
            crawl.sync(later=7200)
            sandbox.do("edit", NAME, fields={"website": "https://example.com"})
            assert _hidden(crawl)
            assert _shown(crawl.path, NAME) == []
        sandbox.clear_faults()
        crawl.sync(later=86400)
        assert "branch_deleted" in {kind for kind, *_ in crawl.changes()}
        assert not _hidden(crawl)
        assert _shown(crawl.path, NAME) == []


def test_a_listing_of_refs_that_began_in_private_does_not_open_it(tmp_path: Path) -> None:
    """Its first page is from before; a second listing opens it."""
    with crawling(tmp_path, page_length=2, **FRESH) as (sandbox, crawl):
        for number in range(6):
            sandbox.do("create_branch", NAME, name=f"b{number}")
        crawl.sync()
        _hide(sandbox)
        crawl.sync(max_requests=3, later=7200)
        place = crawl.rows("SELECT * FROM cursors WHERE stream LIKE 'refs:%'")
        assert place
        assert "acquire-initech-deal" in {row[0] for row in crawl.rows("SELECT name FROM branches")}
        _publish(sandbox)
        sandbox.do("create_branch", NAME, name="acquired")  # which keeps all others on their pages
        crawl.sync(max_requests=1, later=7200)
        read_at = crawl.one("SELECT refs_synced_at FROM repositories WHERE full_name = ?", NAME)
        assert _hidden(crawl)
        with closing(sqlite3.connect(crawl.path)) as connection, connection:  # as answers under way would
            connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)", place[0])
        crawl.sync(later=1)
        assert crawl.one("SELECT refs_synced_at FROM repositories WHERE full_name = ?", NAME) > read_at
        assert _hidden(crawl)
        assert _shown(crawl.path, NAME) == []
        crawl.sync()
        assert not _hidden(crawl)
        assert _shown(crawl.path, NAME) == []


def test_a_webhook_before_the_listing_opens_nothing(tmp_path: Path) -> None:
    """A push moves or deletes a branch of the private time before the refs were read."""
    hook = webhook_mirror(tmp_path)
    hook.push(OLD, NEW)
    assert hook.main() == NEW
    hook.crawl.sync()
    hook.sandbox.do("make_private", SOME)
    hook.sandbox.do("create_branch", SOME, name="acquire-initech-deal", target=OLD)
    hook.crawl.sync()
    hook.sandbox.do("delete_branch", SOME, name="acquire-initech-deal")
    hook.sandbox.do("make_public", SOME)
    hook.sandbox.add_fault(Fault("500", where="refs", nth=None))
    hook.crawl.sync()
    body = json.loads((Path(__file__).parent / "answers/webhooks/cloud_branch_deleted.json").read_text())
    body["repository"] |= {"uuid": hook.uuid(SOME), "full_name": SOME}
    gone = body["push"]["changes"][0]
    gone["old"]["name"] = "acquire-initech-deal"
    gone["old"]["target"]["hash"] = OLD
    hook.deliver("repo:push", json.dumps(body).encode())
    changes = hook.crawl.changes()
    assert changes[-1][:3] == ("branch_deleted", SOME, "acquire-initech-deal")
    assert _shown(hook.crawl.path, SOME) == []
    hook.sandbox.clear_faults()
    hook.crawl.sync(later=86400)
    assert not _hidden(hook.crawl, SOME)
    assert _shown(hook.crawl.path, SOME) == []


def test_a_repository_made_private_again_is_hidden(tmp_path: Path) -> None:
    """A second private time is hidden like the first."""
    with crawling(tmp_path, synced=True, **FRESH) as (sandbox, crawl):
        for _ in range(2):
            _hide(sandbox)
            crawl.sync()
            _publish(sandbox)
            crawl.sync()
            assert not _hidden(crawl)
            assert _shown(crawl.path, NAME) == []


def test_a_repository_that_was_never_private_loses_nothing(tmp_path: Path) -> None:
    """Its creation and later changes are visible at once."""
    with crawling(tmp_path, synced=True, **FRESH) as (sandbox, crawl):
        sandbox.do("create", workspace="ubernostrum", name="Brand New")
        crawl.sync()
        sandbox.do("create_branch", "ubernostrum/brand-new", name="first-branch")
        crawl.sync()
        told = _told(crawl.path, "ubernostrum/brand-new")
        assert "first-branch" in told
        events = client_of(crawl.path).json("/1.0/repositories/ubernostrum/brand-new/events")["events"]
        assert {event["event"] for event in events} >= {"create", "pushed"}


def test_a_mirror_without_refs_opens_at_once(tmp_path: Path) -> None:
    """Later changes are visible at once, earlier ones never; refs that are in the file must be read first."""
    with crawling(tmp_path, synced=True, refs="none", **FRESH) as (sandbox, crawl):
        _hide(sandbox)
        crawl.sync()
        _publish(sandbox)
        crawl.sync()
        assert not _hidden(crawl)
        assert _shown(crawl.path, NAME) == []
        sandbox.do("edit", NAME, fields={"description": "A nicer library"})
        crawl.sync()
        assert "A nicer library" in _told(crawl.path, NAME)
    filled = FixtureDb(tmp_path / "other.db")
    filled.repositories([repository("a/b", is_private=True)], first=True)
    filled.refs("a/b", [hg_ref("branch", "old-secret", "1")])
    filled.store.save_page(filled.upstream_id, [repository("a/b")], Look(LATER))
    assert filled.store.row("SELECT public_from FROM repositories")[0] == HIDDEN
    filled.store.close()


def test_refs_requested_before_do_not_open_it(tmp_path: Path) -> None:
    """Although they are written later: they must be read again, which opens it."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("a/b", is_private=True)], first=True)
    filled.refs("a/b", [hg_ref("branch", "old-secret", "1"), hg_ref("branch", "main", "2")])
    filled.repositories([repository("a/b")], at=LATER)
    state = "SELECT public_from, refs_stale FROM repositories"
    filled.refs("a/b", [hg_ref("branch", "old-secret", "1")])  # asked for before
    assert tuple(filled.store.row(state)) == (HIDDEN, 1)
    filled.refs("a/b", [], at=LATER)
    assert tuple(filled.store.row(state)) == (filled.store.row("SELECT max(id) FROM changes")[0], 0)
    filled.store.close()
    assert _shown(tmp_path / "mirror.db", "a/b") == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_repository_that_one_upstream_sees_private_is_hidden_in_all_of_its_server(
    tmp_path: Path, gone: bool
) -> None:
    """It was transferred to a workspace of another credential; the first upstream is asked for it again."""
    db = FixtureDb(tmp_path / "mirror.db")
    db.repositories([repository("ann/tool"), repository("ann/other")])
    if gone:
        db.gone("ann/tool")
    second, elsewhere = (
        db.store.save_upstream(name, "cloud", url)
        for name, url in (("second", "https://api.example.com/2.0"), ("else", "https://else.example.com/2.0"))
    )
    db.store.save_page(elsewhere, [repository("ann/tool")], Look(SEEN))
    moved = repository("bob/tool", uuid="{ann/tool}", is_private=True)
    db.store.save_page(second, [moved], Look(LATER))
    shown = "SELECT upstream_id, full_name FROM repositories WHERE is_private = 0 ORDER BY id"
    assert db.store.rows(shown) == [(db.upstream_id, "ann/other"), (elsewhere, "ann/tool")]
    assert db.store.rows("SELECT kind, repository_id FROM changes WHERE kind = 'made_private'") == [
        ("made_private", 1)
    ]
    under_way = Look("2026-11-03T12:00:00.000000Z", listed_since=SEEN)
    db.store.save_page(db.upstream_id, [repository("ann/tool")], under_way)
    assert db.store.value("SELECT is_private FROM repositories WHERE id = 1") == 1
    with db.store.transaction() as connection:
        assert [hint.uuid for hint in Cursors(connection, db.upstream_id).hints.take()] == ["{ann/tool}"]
    db.store.save_page(db.upstream_id, [repository("ann/tool")], Look("2026-11-04T12:00:00.000000Z"))
    assert db.store.value("SELECT is_private FROM repositories WHERE id = 1") == 0  # it is asked directly
