"""All kinds of upstreams over real HTTP against one sandbox agree with each other."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from upstream_fakes import FakeClock, MemoryLedger

from mirror.config import UpstreamConfig
from mirror.model import Ref, Repository, RepositoryKey
from mirror.sandbox import RunningSandbox, Sandbox, World, running
from mirror.upstream.connect import connect
from mirror.upstream.protocol import Page, Upstream


@pytest.fixture(scope="module")
def served() -> Iterator[RunningSandbox]:
    """Serve a small world."""
    with running(Sandbox(World(300))) as found:
        yield found


@contextmanager
def upstream_at(served: RunningSandbox, **settings: Any) -> Iterator[Upstream]:
    """Connect to it with a token that may see everything."""
    time = FakeClock()
    config = UpstreamConfig(name="s", credential="env:S", **{"kind": "sandbox", "url": served.url} | settings)
    upstream, _ = connect(
        config, ledger=MemoryLedger(), wait=time.wait, clock=time.clock, environ={"S": "sandbox"}
    )
    with closing(upstream):
        yield upstream


def all_repositories(upstream: Upstream, workspace: str) -> list[Repository]:
    """Read all pages."""
    found, place = list[Repository](), None
    while True:
        page = upstream.fetch_repositories(workspace, "created", place)
        assert not page.bad
        found += page.rows
        if page.next is None:
            return found
        place = page.next


def all_refs(upstream: Upstream, row: Repository) -> dict[tuple[str, str], Ref]:
    """Read all pages."""
    key = RepositoryKey(uuid=row.uuid, full_name=row.full_name, scm=row.scm)
    found, place = dict[tuple[str, str], Ref](), None
    while True:
        page: Page[Ref] = upstream.fetch_refs(key, place)
        assert not page.bad
        found |= {(ref.kind, ref.name): ref for ref in page.rows}
        if page.next is None:
            return found
        place = page.next


def test_the_cloud_client_reads_the_sandbox(served: RunningSandbox) -> None:
    """Every workspace, its members and all of its repositories can be read, and one by its identity."""
    with upstream_at(served) as upstream:
        names = [owner.username for owner in upstream.fetch_workspaces(None).rows if owner.username]
        assert {"jespern", "1team"} <= set(names)
        seen = dict[str, Repository]()
        for name in names:
            owner = upstream.fetch_workspace(name)
            assert not upstream.fetch_members(name, None).bad
            rows = all_repositories(upstream, name)
            assert {row.owner.uuid for row in rows} <= {owner.uuid}
            assert {row.owner.username for row in rows} <= {name}
            seen |= {row.uuid: row for row in rows}
        assert len(seen) >= 300
        piston = next(row for row in seen.values() if row.full_name == "jespern/django-piston")
        assert (piston.scm, piston.main_branch, piston.followers_count) == ("hg", "default", 173)
        again = upstream.fetch_repository(RepositoryKey(uuid=piston.uuid, full_name=piston.full_name))
        assert again == piston
        assert {name for kind, name in all_refs(upstream, piston) if kind == "tag"} == {
            "0.2.1",
            "0.2.2",
            "0.2.3",
            "tip",
        }


def hashes(refs: dict[tuple[str, str], Ref]) -> dict[tuple[str, str], str]:
    """Keep what every API has; names with spaces are left out, because git has none."""
    return {key: ref.target_hash for key, ref in refs.items() if " " not in key[1]}


def commits(refs: dict[tuple[str, str], Ref]) -> dict[tuple[str, str], tuple[str | None, ...]]:
    """Keep the fields of commits that API 1.0 has."""
    return {key: (ref.target_date, ref.target_author, ref.target_message) for key, ref in refs.items()}


@pytest.mark.parametrize("settings", [{}, {"refs": "git"}, {"kind": "legacy"}], ids=["api", "git", "legacy"])
def test_refs_are_the_same_through_every_api(served: RunningSandbox, settings: dict[str, str]) -> None:
    """API 2.0, git and API 1.0 agree on every branch and tag, as far as each reports them."""
    address = {"url": served.origin} if "kind" in settings else {}
    with upstream_at(served) as cloud, upstream_at(served, **settings, **address) as other:
        number = 0
        for row in [row for name in ("1team", "mcatalbas") for row in all_repositories(cloud, name)][:30]:
            expected, refs = all_refs(cloud, row), all_refs(other, row)
            assert hashes(refs) == hashes(expected), row.full_name
            number += len(refs)
            if settings.get("kind") == "legacy":
                assert commits(refs) == commits(expected)
        assert number > 100


def test_the_data_center_client_reads_the_sandbox(served: RunningSandbox) -> None:
    """Projects have the repositories of the workspaces; REST and git have the same refs."""
    with upstream_at(served) as cloud:
        expected = {row.slug for row in all_repositories(cloud, "1team")}
    settings = {"kind": "datacenter", "url": served.origin}
    with upstream_at(served, **settings) as rest, upstream_at(served, **settings, refs="git") as git:
        rest.fetch_current_user()
        projects = [owner for owner in rest.fetch_workspaces(None).rows if owner.username]
        assert any(owner.kind == "user" for owner in projects)
        rows = all_repositories(rest, "1TEAM")
        assert {row.slug for row in rows} == expected
        for row in rows[:20]:
            by_rest = all_refs(rest, row)
            if hashes(by_rest) == {key: ref.target_hash for key, ref in by_rest.items()}:
                assert hashes(all_refs(git, row)) == hashes(by_rest)
            assert all(ref.target_date for ref in by_rest.values() if ref.kind == "branch")
            key = RepositoryKey(uuid=row.uuid, full_name=row.full_name, scm="git")
            assert rest.fetch_repository(key) == row


def test_the_legacy_client_reads_the_sandbox(served: RunningSandbox) -> None:
    """API 1.0 lists the same repositories, with the same dates to the second."""
    with upstream_at(served) as cloud, upstream_at(served, kind="legacy", url=served.origin) as old:
        for name in ("1team", "jespern"):
            new_rows = {row.full_name: row for row in all_repositories(cloud, name)}
            old_rows = {row.full_name: row for row in all_repositories(old, name)}
            assert set(old_rows) == set(new_rows)
            for full_name, row in old_rows.items():
                same = new_rows[full_name]
                assert (row.name, row.scm, row.is_private, row.size) == (
                    same.name,
                    same.scm,
                    same.is_private,
                    same.size,
                )
                assert (row.updated_at or "")[:19] == (same.updated_at or "")[:19]
        assert old.fetch_workspace("1team").kind == "team"
