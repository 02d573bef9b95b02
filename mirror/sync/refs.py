"""Listing branches and tags: of new and updated repositories, and of those not asked for lately."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from sqlite3 import Connection
from typing import NamedTuple

from mirror.errors import MirrorError, UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.store.changes import Change, reopen
from mirror.store.crawl_state import RefsListing
from mirror.store.cursors import Cursors
from mirror.store.failures import Failure
from mirror.store.refs import (
    SavedRefs,
    has_refs,
    has_unnamed,
    mark_old_refs_stale,
    save_main_branch,
    save_refs,
)
from mirror.sync.engine import Step
from mirror.sync.listing_state import PASSES, refs_advanced, refuse_cut_off
from mirror.sync.run import Run
from mirror.times import to_text
from mirror.upstream.protocol import Page

UNTOLD = timedelta(days=1)
"""After this, refs are asked for again where nothing reports a push."""
_CHUNK = 500
_STALE = """
    FROM repositories AS r
    WHERE upstream_id = :upstream AND refs_stale AND deleted_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM sync_failures AS f
        WHERE f.repository_id = r.id AND f.kind = 'refs' AND f.next_try_at > :now)"""


class _Stale(NamedTuple):
    row_id: int
    uuid: str
    full_name: str
    scm: str | None


def count_stale(run: Run) -> int:
    """Count the repositories whose refs are to be asked for."""
    values = {"upstream": run.upstream_id, "now": run.now_text()}
    return int(run.store.value(f"SELECT count(*) {_STALE}", values))


def mark_old(run: Run) -> None:
    """Let refs be asked for again once they are older than `refs_every`: tags may move unannounced.

    Where no `updated_at` is known (Data Center), a push is unannounced too: those are asked for every day,
    and whenever everything is. Refs of a repository that was listed while `refs` was "none" count as oldest.
    Single refs that were not understood are read again at their next try.
    """
    every = timedelta(seconds=run.config.refs_every)
    untold = (run.round or run.now_text()) if run.full else to_text(run.now() - min(every, UNTOLD))
    with run.store.transaction() as connection:
        mark_old_refs_stale(
            connection,
            run.upstream_id,
            before=to_text(run.now() - every),
            before_untold=untold,
            now=run.now_text(),
        )


def refs_steps(run: Run, *, new_since: str | None = None) -> Iterator[Step]:
    """Yield a step for each repository whose refs are stale, a few hundred read ahead at a time.

    With `new_since`, only for those that were first seen at that moment or later and were never read.
    """
    last, new = 0, "" if new_since is None else "AND refs_synced_at IS NULL AND first_seen_at >= :since"
    while True:
        rows = run.store.rows(
            f"SELECT id, uuid, full_name, scm {_STALE} {new} AND id > :last ORDER BY id LIMIT {_CHUNK}",
            {"upstream": run.upstream_id, "now": run.now_text(), "since": new_since, "last": last},
            _Stale,
        )
        if not rows:
            return
        with run.cursors() as cursors:
            begun = cursors.begun_refs()
        for row_id, uuid, full_name, scm in rows:
            key, listing = RepositoryKey(uuid=uuid, full_name=full_name, scm=scm), RefsListing()
            if row_id in begun:
                with run.cursors() as cursors:
                    listing = cursors.refs(row_id).read() or listing
            yield RefsStep(run, row_id, key, listing)
        last = rows[-1].row_id


class RefsStep(Step):
    """Ask for a page of a repository's branches and tags."""

    def __init__(self, run: Run, row_id: int, key: RepositoryKey, listing: RefsListing) -> None:
        self.run, self.row_id, self.key, self.listing = run, row_id, key, listing
        self.asked_at = ""

    def ask(self) -> Page[Ref]:
        """Ask for the page."""
        self.asked_at = self.run.now_text()
        return self.run.upstream.fetch_refs(self.key, self.listing.next)

    def save(self, answer: Page[Ref]) -> Sequence[Step]:
        """Write it, with the cursor of a listing of several pages."""
        run, listing = self.run, refs_advanced(self.listing, answer, self.asked_at)
        if self._is_doubtful(answer, listing):
            return [RefsStep(run, self.row_id, self.key, RefsListing(passes=2))]
        now = run.now_text()
        with run.store.transaction() as connection:
            moved = self._save_main_branch(answer, listing)  # first: it asks whether refs were ever read
            is_only_page = listing.next is None and listing.pages == 1
            saved = self._write(connection, answer.rows, last_page=is_only_page, listing=listing, seen_at=now)
            if listing.next is None and listing.pages > 1:
                listing, saved = self._ended(connection, listing, saved, seen_at=now)
            done = listing.next is None and listing.pages > 0
            run.store.save_changes([*moved, *saved.changes], run_id=run.id, at=now)
            if not done:
                Cursors(connection, run.upstream_id).refs(self.row_id).save(listing, at=now)
            elif self.listing != RefsListing():
                Cursors(connection, run.upstream_id).refs(self.row_id).drop()
            if done:
                run.answered_refs(self.row_id, understood=listing.bad == 0)
            if done and listing.bad == 0:
                reopen(connection, self.row_id, listed_since=listing.since)
            for bad in answer.bad:
                what = f"{self.key.full_name}: {bad.what}"
                run.fail(Failure("ref", what, bad.error, repository_id=self.row_id))
        run.counts.refs_new += saved.new
        run.counts.refs_changed += saved.moved
        run.counts.refs_gone += saved.gone
        if not done:
            return [RefsStep(run, self.row_id, self.key, listing)]
        run.progress.step()
        return []

    def _is_doubtful(self, answer: Page[Ref], listing: RefsListing) -> bool:
        """Return whether a listing ended too early to be trusted: short of its own total, or without any ref.

        The second pass decides, since totals may count what cannot be seen, and the last ref may be deleted;
        raises UpstreamShapeError where a page is still lost, or a repository with a main branch has no ref.
        """
        if listing.next is not None:
            return False
        if listing.rows > 0:
            if listing.passes > 1:
                refuse_cut_off(answer, pages=listing.pages, rows=listing.rows)
            return listing.passes == 1 and answer.size is not None and listing.rows < answer.size
        store = self.run.store
        main = store.value("SELECT main_branch FROM repositories WHERE id = ?", (self.row_id,))
        if listing.passes > 1 and main is not None and not self._listing_tells_main_branch:
            raise UpstreamShapeError(f"there is a main branch {main}, and yet no ref is listed")
        return listing.passes == 1 and (main is not None or has_refs(store.connection, self.row_id))

    def _write(
        self,
        connection: Connection,
        rows: Sequence[Ref],
        *,
        last_page: bool,
        listing: RefsListing,
        seen_at: str,
    ) -> SavedRefs:
        return save_refs(
            connection,
            self.row_id,
            rows,
            first_page=listing.pages == 1,
            last_page=last_page,
            keep_unnamed=listing.bad > 0,
            seen_at=seen_at,
        )

    @property
    def _listing_tells_main_branch(self) -> bool:
        """Whether it comes with the branches, and not with the repository."""
        return self.run.config.kind == "datacenter" and self.run.config.refs == "api"

    def _save_main_branch(self, answer: Page[Ref], listing: RefsListing) -> list[Change]:
        """Write the main branch if the branches have it (null without branches); return what changed."""
        if not self._listing_tells_main_branch:
            return []
        main = next((ref.name for ref in answer.rows if ref.is_main), None)
        if main is None and (listing.next is not None or listing.rows > 0):
            return []
        with self.run.store.transaction() as connection:
            return save_main_branch(connection, self.row_id, main)

    def _ended(
        self, connection: Connection, listing: RefsListing, saved: SavedRefs, *, seen_at: str
    ) -> tuple[RefsListing, SavedRefs]:
        """Drop what no page has named, or go back to the first page to make sure of it.

        A ref that is deleted while the pages are read pulls another one onto a page that was read already;
        so the second pass decides what is gone.
        """
        if listing.passes == 1 and listing.bad == 0 and has_unnamed(connection, self.row_id):
            return RefsListing(passes=2), saved
        rest = self._write(connection, (), last_page=True, listing=listing, seen_at=seen_at)
        return listing, SavedRefs(saved.new, saved.moved, rest.gone, [*saved.changes, *rest.changes])

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Keep the refs that are known, and try again: now where a link is refused, else after a while."""
        run, status = self.run, self.run.isolate(error)
        if status in (400, 404) and self.listing.next is not None and self.listing.passes < PASSES:
            # The repository or its workspace has another name since the last page.
            return [RefsStep(run, self.row_id, self.key, RefsListing(passes=self.listing.passes + 1))]
        with run.store.transaction(), run.cursors() as cursors:
            cursors.refs(self.row_id).drop()
            run.fail(
                Failure(
                    "refs",
                    self.key.uuid,
                    f"{self.key.full_name}: {error}",
                    repository_id=self.row_id,
                    status=status,
                    retry_after=error.retry_after if isinstance(error, UpstreamRefused) else None,
                )
            )
        run.progress.step()
        return []
