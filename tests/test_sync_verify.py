"""Comparing rows with the upstream: correct rows are not called wrong, and repairs do no harm."""

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from sync_harness import START, Clock, SyncHarness, assert_matches_sandbox, crawling

from mirror.model import Ref, RepositoryKey
from mirror.sandbox import Fault, Sandbox, World, running
from mirror.sync.verify import verify_upstream
from mirror.upstream.protocol import Page

ONE: dict[str, Any] = {"workspaces": ("ubernostrum",)}
SOME = "ubernostrum/django-profiles"


def of_refs(crawl: SyncHarness) -> str:
    """Return the path of the refs of `SOME`."""
    uuid = crawl.one("SELECT uuid FROM repositories WHERE full_name = ?", SOME)
    return f"*{uuid.strip('{}')}*/refs"


@pytest.mark.parametrize("kind", ["bad_row", "empty"])
@pytest.mark.parametrize("repair", [True, False])
def test_a_ref_that_could_not_be_read_is_not_called_missing(tmp_path: Path, kind: str, repair: bool) -> None:
    """With one broken ref, or without any: nothing is reported or deleted."""
    with crawling(tmp_path, synced=True, **ONE) as (sandbox, crawl):
        sandbox.add_fault(Fault(kind, where=of_refs(crawl), nth=None))
        summary, findings = crawl.verify(repair=repair)
        assert (summary.exit_code, findings) == (0, [])
        assert crawl.changes() == []
        sandbox.clear_faults()
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_refs_that_were_never_read_are_no_difference(tmp_path: Path) -> None:
    """The next sync reads them."""
    with crawling(tmp_path, refs="none", **ONE) as (_, crawl):
        crawl.sync()
        crawl.config = msgspec.structs.replace(crawl.config, refs="api")
        assert crawl.verify()[1] == []


def test_verify_repairs_refs_by_a_sync_step(tmp_path: Path) -> None:
    """With a broken row: moved refs are repaired and unread ones stay."""
    with crawling(tmp_path, **ONE) as (sandbox, crawl):
        sandbox.do("create_branch", SOME, name="moves")
        crawl.sync()
        sandbox.do("push", SOME, branch="moves", touch=False)
        sandbox.do("create_branch", SOME, name="zz", touch=False)
        sandbox.add_fault(Fault("bad_row", where=of_refs(crawl), nth=None))
        before = crawl.one("SELECT count(*) FROM branches")
        summary, findings = crawl.verify(repair=True)
        assert findings
        assert all(finding.mended for finding in findings)
        assert [failure.kind for failure in summary.failures] == ["ref"]
        assert crawl.one("SELECT count(*) FROM branches") >= before
        assert not [kind for kind, *_ in crawl.changes() if kind.endswith("_deleted")]
        sandbox.clear_faults()
        crawl.verify(repair=True)
        assert crawl.verify()[1] == []
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_refs_that_cannot_be_listed_are_not_called_repaired(tmp_path: Path) -> None:
    """If only the comparison got them, the next sync repairs them."""
    with crawling(tmp_path, synced=True, **ONE) as (sandbox, crawl):
        sandbox.do("create_branch", SOME, name="new", touch=False)
        sandbox.add_fault(Fault("403", where=of_refs(crawl), nth=2))
        summary, findings = crawl.verify(repair=True)
        assert [finding.mended for finding in findings if finding.what.startswith("branch")] == [False]
        assert [failure.kind for failure in summary.failures] == ["refs"]
        crawl.sync()
        assert_matches_sandbox(crawl, sandbox, ONE["workspaces"])


def test_links_in_a_circle_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of that repository only, after one round."""
    asked = list[str | None]()

    def circle(key: RepositoryKey, place: str | None) -> Page[Ref]:
        asked.append(place)
        assert len(asked) < 100
        onward = "two" if place == "one" else "one"
        ref = Ref(kind="branch", name=f"{key.slug} {place}", target_hash="a" * 40)
        return Page(rows=(ref,), next=onward, size=None, date=START)

    with crawling(tmp_path, synced=True, **ONE) as (_, crawl):
        with crawl.run() as run:
            monkeypatch.setattr(run.upstream, "fetch_refs", circle)
            summary, findings = verify_upstream(run, sample=1, repair=True, random=Random(0))
        assert (summary.state, findings, asked) == ("incomplete", [], [None, "one", "two"])
        assert "leads back" in summary.failures[0].error


def test_a_repository_that_went_to_an_owner_who_is_not_mirrored_is_a_tombstone(tmp_path: Path) -> None:
    """As in a sync; any unmirrored owner counts."""
    with crawling(tmp_path, synced=True, **ONE) as (sandbox, crawl):
        for name in ("django-profiles", "django-registration"):
            sandbox.do("transfer", f"ubernostrum/{name}", to="brodie")
            _, findings = crawl.verify(repair=True)
            assert {finding.mended for finding in findings} == {True}
        assert set(crawl.gone().values()) == {
            "transferred to brodie/django-profiles",
            "transferred to brodie/django-registration",
        }
        assert crawl.sync(full=True).counts.repositories_gone == 0
        sandbox.do("transfer", "brodie/django-profiles", to="ubernostrum")
        crawl.sync()
        assert_matches_sandbox(crawl, sandbox, ["ubernostrum"])


@pytest.mark.parametrize(
    ("kind", "path", "refs", "secret"),
    [
        ("datacenter", "", "api", "jespern:sandbox"),
        ("datacenter", "", "git", "jespern:sandbox"),
        ("legacy", "/1.0", "api", None),
        ("sandbox", "/2.0", "git", "sandbox"),
        ("sandbox", "/2.0", "api", "sandbox"),
    ],
)
def test_a_correct_mirror_passes_verify_for_every_kind(
    tmp_path: Path, kind: str, path: str, refs: str, secret: str | None
) -> None:
    """Only fields that listings and single answers both have are compared."""
    clock = Clock()
    with running(Sandbox(World(40, now=clock.now))) as served:
        names = ("jespern", "erik", "ubernostrum")
        workspaces = tuple(f"~{name.upper()}" for name in names) if kind == "datacenter" else names
        crawl = SyncHarness(
            served.origin, tmp_path / "mirror.db", clock, kind=kind, url=served.origin + path, refs=refs,
            secret=secret, workspaces=workspaces,
        )  # fmt: skip
        assert crawl.sync().state == "complete"
        assert crawl.one("SELECT count(*) FROM repositories") >= 3
        assert crawl.verify()[1] == []


def test_a_repair_goes_on_after_no_comparison(tmp_path: Path) -> None:
    """What an interrupted comparison found is mended; one that goes on says how much it leaves out."""
    with crawling(tmp_path, synced=True, refs="none", **ONE) as (sandbox, crawl):
        for (name,) in crawl.rows("SELECT full_name FROM repositories"):
            sandbox.do("edit", name, fields={"description": "other"})
        (first,) = {finding.repository for finding in crawl.verify(max_requests=1)[1]}
        mended = crawl.verify(repair=True, max_requests=1)[1]
        assert {(finding.repository, finding.mended) for finding in mended} == {(first, True)}
        summary, rest = crawl.verify()
        assert first not in {finding.repository for finding in rest}
        assert summary.notes == ["goes on after 1 repository, which a run that was interrupted has compared"]
        assert crawl.verify(repair=True)[1]
        summary, rest = crawl.verify()
        assert (summary.notes, rest) == ([], [])


def test_a_sample_does_not_move_the_cursor_of_a_full_verify(tmp_path: Path) -> None:
    """The weekly job must not restart an interrupted `--sample all`."""
    with crawling(tmp_path, synced=True, **ONE) as (_, crawl):
        in_all = crawl.verify()[0].counts.requests
        assert crawl.verify(max_requests=2)[0].state == "paused"
        assert crawl.verify(sample=1)[0].counts.requests == 2
        assert crawl.verify()[0].counts.requests == in_all - 2
        assert crawl.verify()[0].counts.requests == in_all
