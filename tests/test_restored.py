"""After a restore, strangers see nothing until a full listing shows what is still public."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgi_client import AsgiClient, bearer, client_of
from click.testing import CliRunner
from sync_harness import SyncHarness, crawling

from mirror.cli.main import mirror as mirror_command
from mirror.config import Config
from mirror.observe.health import read_health
from mirror.sandbox import Sandbox
from mirror.store import Store, tokens
from mirror.store.backup import Trust, back_up, restore_copy
from mirror.store.files import open_reader
from mirror.write import PassThrough

if TYPE_CHECKING:
    from mirror.serve.writer import Writer

FIVE: dict[str, Any] = {"workspaces": ("jespern", "ubernostrum")}
HIDDEN = "ubernostrum/django-registration"
SHOWN = "jespern/django-piston"

UNAVAILABLE = (
    "/", "/-/search?q=django", "/-/search.json?q=django", "/-/search.csv?q=django", f"/-/r/{SHOWN}",
    "/-/u/jespern", "/-/changes", "/-/changes.atom", "/-/mirror-status", "/-/questions",
    f"/1.0/repositories/{SHOWN}", "/1.0/users/jespern", "/1.0/repositories?name=django",
    f"/2.0/repositories/{SHOWN}", "/2.0/repositories/jespern", "/2.0/repositories", "/2.0/workspaces/jespern",
    f"/2.0/repositories/{SHOWN}/refs", "/2.0/users/jespern", "/rest/api/1.0/projects", "/rest/api/1.0/repos",
    "/rest/api/latest/projects/jespern/repos",
)  # fmt: skip
CLOSED = (
    "/mirror", "/mirror/repositories", "/mirror/repositories.json", "/mirror/repositories/1",
    "/mirror.json?sql=select+full_name+from+repositories", "/mirror/recent_changes.json",
    "/mirror/stale.json",
)  # fmt: skip


@pytest.fixture
def mirrored(tmp_path: Path) -> Iterator[tuple[Sandbox, SyncHarness]]:
    """A mirror of public repositories only, with a token for all of it and one of a user, and its copy."""
    with crawling(tmp_path, secret=None, **FIVE) as (sandbox, crawl):
        assert crawl.sync().exit_code == 0
        back_up(crawl.path, crawl.path.with_name("copy.db"))
        yield sandbox, crawl


def put_back(crawl: SyncHarness, *, public: bool = False) -> AsgiClient:
    """Restore the copy, and serve it."""
    restore_copy(
        crawl.path.with_name("copy.db"),
        crawl.path,
        crawl.clock.now(),
        mode=0o600,
        trust=Trust(public=public),
        limits={},
    )
    return client_of(crawl.path)


def statuses(served: AsgiClient, addresses: tuple[str, ...], **options: Any) -> set[int]:
    return {served.get(address, **options).status_code for address in addresses}


def test_a_restored_copy_shows_strangers_nothing(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """APIs and pages answer 503 with Retry-After, tables and SQL are closed, also for users' tokens."""
    _, crawl = mirrored
    served = put_back(crawl)
    with Store(crawl.path) as store:
        whole = bearer(tokens.create(store, "whole"))
        jespern = bearer(tokens.create(store, "his", user="jespern"))
    for address in UNAVAILABLE:
        answer = served.get(address)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "300"), address
        assert "Noehr" not in answer.text, address
    assert statuses(served, CLOSED) == {403}
    assert "holds private" not in served.get(CLOSED[0]).text + served.get("/-/metrics").text
    assert statuses(served, UNAVAILABLE, headers=jespern) == {503}
    assert statuses(served, CLOSED, headers=jespern) == {403}
    assert statuses(served, (*UNAVAILABLE, *CLOSED), headers=whole) == {200}
    assert "budget_used" not in served.get("/-/metrics").text
    with closing(open_reader(crawl.path)) as connection:
        health = read_health(connection, crawl.path, crawl.clock.now(), free=2**40)
    assert health.status == "ok"
    assert "a copy was restored" in health.warnings[0]
    config = crawl.path.with_name("mirror.toml")
    config.write_text(f'database = "{crawl.path.name}"')
    shown = CliRunner().invoke(mirror_command, ["--config", str(config), "status"])
    assert ": a copy was restored" in shown.output


def test_a_user_writes_nothing_in_a_restored_copy(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """The rights of the copy may be outdated; a token of the whole mirror writes."""
    _, crawl = mirrored
    put_back(crawl)
    with Store(crawl.path) as store:
        whole, his = (
            bearer(tokens.create(store, str(user), "write", user=user)) for user in (None, "jespern")
        )
    writer: Writer = PassThrough(Config(database=str(crawl.path)))
    served = client_of(crawl.path, writes=True, writer=writer)
    for method in ("PUT", "DELETE"):
        answer = served(method, f"/2.0/repositories/{SHOWN}", headers=his)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "300")
        answer = served(method, f"/2.0/repositories/{SHOWN}", headers=whole)
        assert "no longer names" in answer.text  # the upstream, which this configuration lacks


def test_a_full_listing_opens_a_restored_copy(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """The next sync lists everything, also after an interruption; what was made private stays hidden."""
    sandbox, crawl = mirrored
    sandbox.do("make_private", HIDDEN)
    crawl.sync()
    served = put_back(crawl)
    assert crawl.sync(max_requests=3).state == "paused"
    assert served.get(f"/2.0/repositories/{SHOWN}").status_code == 503
    summary = crawl.sync()
    assert summary.exit_code == 0
    assert any("strangers are answered again" in note for note in crawl.notes)
    assert served.get(f"/2.0/repositories/{SHOWN}").status_code == 200
    assert served.get(f"/2.0/repositories/{HIDDEN}").status_code == 404
    assert crawl.gone() == {HIDDEN: "no longer visible"}


def test_hints_and_retries_do_not_open_it(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """Nor does a listing of one of two workspaces."""
    _, crawl = mirrored
    served = put_back(crawl)
    crawl.config = type(crawl.config)(**{**as_settings(crawl), "workspaces": ("jespern", "no-such-one")})
    crawl.sync()
    assert served.get(f"/2.0/repositories/{SHOWN}").status_code == 503


def as_settings(crawl: SyncHarness) -> dict[str, Any]:
    return {name: getattr(crawl.config, name) for name in crawl.config.__struct_fields__}


def test_unconfirmed_repositories_count_as_private(tmp_path: Path) -> None:
    """If the brake holds, unlisted ones may be gone or hidden, until each is seen."""
    gone = ("jespern/django-piston", "jespern/jespern", "jespern/jespern-jekyll")
    with crawling(tmp_path, synced=True, **FIVE) as (sandbox, crawl):
        shown = [name for (name,) in crawl.rows("SELECT full_name FROM repositories WHERE NOT is_private")]
        back_up(crawl.path, crawl.path.with_name("copy.db"))
        served = put_back(crawl)
        for name in gone:
            sandbox.do("delete", name)
        assert crawl.sync().exit_code == 1
        assert any("count as private" in note for note in crawl.notes)
        assert crawl.gone() == {}
        assert statuses(served, tuple(f"/2.0/repositories/{name}" for name in gone)) == {404}
        assert served.get(f"/2.0/repositories/{HIDDEN}").status_code == 200
        for name in gone:
            sandbox.do("restore", name)
        assert crawl.sync(full=True).exit_code == 0
        assert statuses(served, tuple(f"/2.0/repositories/{name}" for name in shown)) == {200}
        assert {*gone} & {*shown}


def test_a_trusted_copy_is_open_at_once(mirrored: tuple[Sandbox, SyncHarness]) -> None:
    """For an upstream that no longer exists."""
    _, crawl = mirrored
    assert statuses(put_back(crawl, public=True), (*UNAVAILABLE, *CLOSED)) == {200}
