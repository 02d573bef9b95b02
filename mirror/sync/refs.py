"""Listing branches and tags: of new and updated repositories, and of those not requested lately."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from sqlite3 import Connection
from typing import Any, NamedTuple

from mirror.errors import MirrorError, UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.store.changes import LAST_CHANGE, Change, is_pushed_since, show_new_changes
from mirror.store.crawl_state import RefsListing
from mirror.store.cursors import Cursors
from mirror.store.refs import (
    IS_BARE,
    SavedRefs,
    count_named,
    has_refs,
    has_unnamed,
    mark_old_refs_stale,
    mark_refs_stale,
    save_main_branch,
    save_refs,
    save_unread,
)
from mirror.store.runs import LEFT_OUT, Failure, Failures
from mirror.sync.engine import Step
from mirror.sync.listing_state import PASSES, STALE_LINK, refs_advanced, refuse_cut_off
from mirror.sync.run import Run
from mirror.times import to_text
from mirror.upstream.protocol import NOT_PUBLIC, Page

UNTOLD = timedelta(days=1)
"""After this, refs are requested again even if nothing reports a push."""
_CHUNK = 500
# While a workspace is not listed, any more or because that fails, nothing tells whether a repository is still
# public: its new refs could be private ones.
_STALE = f"""
    FROM repositories AS r
    WHERE upstream_id = :upstream AND refs_stale AND deleted_at IS NULL AND NOT {LEFT_OUT}
    AND (is_private OR last_seen_at >= :round OR owner_id NOT IN (
        SELECT id FROM users WHERE upstream_id = :upstream
        AND uuid IN (SELECT value FROM json_each(:unlisted))))
    AND NOT EXISTS (
        SELECT 1 FROM sync_failures AS f
        WHERE f.repository_id = r.id AND f.kind = 'refs' AND f.next_try_at > :now)"""


class _Stale(NamedTuple):
    """A repository whose refs are to be requested; `is_bare` says that nothing is known of any.

    `last_change` is the number of the last change that was recorded before the request.
    """

    row_id: int
    uuid: str
    full_name: str
    scm: str | None
    is_bare: int
    last_change: int


def _refused(why: str) -> UpstreamRefused:
    """Return the error for refs of another mirror that are not the present ones."""
    return UpstreamRefused(f"the other mirror has to read them again: {why}", status=503, retry_after=60)


def count_stale(run: Run) -> int:
    """Count the repositories whose refs are to be requested."""
    return int(run.store.value(f"SELECT count(*) {_STALE}", _values(run)))


def _values(run: Run) -> dict[str, Any]:
    """Return the parameters of `_STALE`."""
    failed = (run.states.read(name).owner_uuid for name in run.failures.subjects("workspace"))
    return {
        "upstream": run.upstream_id,
        "now": run.now_text(),
        "round": run.round or run.now_text(),
        "left_out": json.dumps(run.states.left_out()),
        "unlisted": json.dumps([owner for owner in failed if owner is not None]),
    }


def mark_old(run: Run) -> None:
    """Mark refs as stale that are older than `refs_every`, and single ones whose next try is due.

    Listings that stopped too long ago start over, with `--full` all that stopped. What failed of workspaces
    that are no longer listed is not missing any more.
    """
    # Tags may move unannounced. Where no `updated_at` is known (Data Center), pushes are unannounced too.
    every, now = timedelta(seconds=run.config.refs_every), run.now()
    began = run.round or to_text(now)
    untold = began if run.full else to_text(now - min(every, UNTOLD))
    link = began if run.full else to_text(now - STALE_LINK)
    with run.store.transaction() as connection:
        Cursors(connection, run.upstream_id).drop_old_refs(before=link)
        Failures(connection, run.upstream_id).drop_left_out(run.states.left_out())
        mark_old_refs_stale(
            connection,
            run.upstream_id,
            before=to_text(now - every),
            before_untold=untold,
            now=to_text(now),
        )


def refs_steps(run: Run, *, new_since: str | None = None) -> Iterator[Step]:
    """Yield a step for each repository whose refs are stale, a few hundred read ahead at a time.

    With `new_since`, only for those that were first seen at that moment or later and were never read.
    """
    values = _values(run) | {"since": new_since}
    last, new = 0, "" if new_since is None else "AND refs_synced_at IS NULL AND first_seen_at >= :since"
    while True:
        rows = run.store.rows(
            f"""SELECT id, uuid, full_name, scm, {IS_BARE}, {LAST_CHANGE}
                {_STALE} {new} AND id > :last ORDER BY id LIMIT {_CHUNK}""",
            values | {"now": run.now_text(), "last": last},
            _Stale,
        )
        if not rows:
            return
        with run.cursors() as cursors:
            begun = cursors.begun_refs()
        for row_id, uuid, full_name, scm, is_bare, last_change in rows:
            key, listing = RepositoryKey(uuid=uuid, full_name=full_name, scm=scm), RefsListing()
            if row_id in begun:
                with run.cursors() as cursors:
                    listing = cursors.refs(row_id).read() or listing
            yield RefsStep(run, row_id, key, listing, last_change=last_change, is_bare=bool(is_bare))
        last = rows[-1].row_id


def _save_together(answered: "list[tuple[RefsStep, Page[Ref], RefsListing]]") -> None:
    """Write whole listings: those of repositories without refs in few statements, others one by one."""
    run = answered[0][0].run
    pages = {step.row_id: answer.rows for step, answer, _ in answered}
    with run.store.transaction() as connection:
        new = save_unread(connection, pages, seen_at=run.now_text())
    run.counts.refs_new += sum(new.values())
    if new:
        run.failures.upstream_answered()
        run.progress.step(sum(step.row_id in new for step, *_ in answered))
    for step, answer, listing in answered:
        # An empty list where something is known of refs by now is not believed: they are requested again.
        if step.row_id not in new and answer.rows:
            step.save_compared(answer, listing)


class RefsStep(Step):
    """Request a page of a repository's branches and tags.

    :param listing: the pages that were read before.
    :param last_change: the last change when the page was requested. If a push was reported since, the page
        may be older: it is not written. The push has left a hint, so the refs are requested again.
    :param is_bare: whether no ref is expected (`_Stale`), so that an empty listing is believed at once.
    """

    def __init__(
        self,
        run: Run,
        row_id: int,
        key: RepositoryKey,
        listing: RefsListing,
        *,
        last_change: int,
        is_bare: bool = False,
    ) -> None:
        self.run, self.row_id, self.key, self.listing, self.is_bare = run, row_id, key, listing, is_bare
        self.last_change, self.asked_at = last_change, ""

    def ask(self) -> Page[Ref]:
        """Request the page."""
        self.asked_at = self.run.now_text()
        return self.run.upstream.fetch_refs(self.key, self.listing.next)

    def save(self, answer: Page[Ref]) -> Sequence[Step]:
        """Write it, a whole listing with those that follow at once."""
        if answer.doubt == NOT_PUBLIC:
            return self.failed(_refused("they may be of the time when the repository was private"))
        run, listing = self.run, refs_advanced(self.listing, answer, self.asked_at)
        if self._is_simple(answer, listing):
            run.store.write_later((self, answer, listing), _save_together)
            return []
        if self._is_doubtful(answer, listing):
            return [self._with(RefsListing(passes=2))]
        return self.save_compared(answer, listing)

    def _is_simple(self, answer: Page[Ref], listing: RefsListing) -> bool:
        """Return whether this is a whole listing that never failed, of as many refs as may be expected."""
        return (
            self.listing == RefsListing()
            and listing.next is None
            and (bool(answer.rows) or self.is_bare)
            and len(answer.rows) >= (answer.size or 0)
            and not answer.bad
            and not answer.doubt
            and not self.run.failures.has_refs_of(self.row_id)
            and not self._listing_tells_main_branch
        )

    def save_compared(self, answer: Page[Ref], listing: RefsListing) -> Sequence[Step]:
        """Compare a page with the file, and write it with the cursor of a listing of several pages."""
        run, now = self.run, self.run.now_text()
        with run.store.transaction() as connection:
            if is_pushed_since(connection, self.row_id, self.last_change):
                Cursors(connection, run.upstream_id).refs(self.row_id).drop()
                run.progress.step()
                return []
            moved = self._save_main_branch(answer, listing)  # first: it asks whether refs were ever read
            is_only_page = listing.next is None and listing.pages == 1
            saved = self._write(connection, answer.rows, last_page=is_only_page, listing=listing, seen_at=now)
            if listing.next is None and listing.pages > 1:
                listing, saved = self._ended(connection, listing, saved, size=answer.size, seen_at=now)
            done = listing.next is None and listing.pages > 0
            run.store.save_changes([*moved, *saved.changes], run_id=run.id, at=now)
            if not done:
                Cursors(connection, run.upstream_id).refs(self.row_id).save(listing, at=now)
            elif self.listing != RefsListing():
                Cursors(connection, run.upstream_id).refs(self.row_id).drop()
            if done:
                self._close(connection, listing, is_hidden=saved.is_hidden)
            for bad in answer.bad:
                what = f"{self.key.full_name}: {bad.what}"
                run.failures.add(Failure("ref", what, bad.error, repository_id=self.row_id))
        run.counts.refs_new += saved.new
        run.counts.refs_changed += saved.moved
        run.counts.refs_gone += saved.gone
        if not done:
            return [self._with(listing)]
        if listing.stale:
            return self.failed(_refused("they may have changed since"))
        run.progress.step()
        return []

    def _close(self, connection: Connection, listing: RefsListing, *, is_hidden: bool) -> None:
        """Note that all refs were read, or that they may have changed by now."""
        if listing.stale:
            mark_refs_stale(connection, self.row_id)
            return
        self.run.failures.answered_refs(self.row_id, understood=listing.bad == 0)
        if listing.bad == 0 and is_hidden:
            show_new_changes(connection, self.row_id, listed_since=listing.since)

    def _with(self, listing: RefsListing) -> "RefsStep":
        """Return the step that goes on with a listing."""
        return RefsStep(self.run, self.row_id, self.key, listing, last_change=self.last_change)

    def _is_doubtful(self, answer: Page[Ref], listing: RefsListing) -> bool:
        """Return whether a listing ended too early to be trusted: short of its own total, or without any ref.

        Raises UpstreamShapeError where a page is still lost in the second pass, or where a repository with a
        main branch has no ref.
        """
        if listing.next is not None:
            return False
        # The second pass decides: totals may count what cannot be seen, and the last ref may be deleted.
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
        self,
        connection: Connection,
        listing: RefsListing,
        saved: SavedRefs,
        *,
        size: int | None,
        seen_at: str,
    ) -> tuple[RefsListing, SavedRefs]:
        """Drop what no page has named, or go back to the first page to make sure of it.

        Raises UpstreamShapeError if the last pass, too, reaches its total by refs that came twice.
        """
        if size is not None and listing.rows >= size:
            missed = size - listing.bad - count_named(connection, self.row_id)
            if missed > 0 and listing.passes < PASSES:
                return RefsListing(passes=listing.passes + 1), saved
            if missed > 0:
                raise UpstreamShapeError(f"it lists refs twice, and {missed:,} not: its order is not stable")
        # A ref that is deleted meanwhile pulls another one onto a page that was read already.
        if listing.passes == 1 and listing.bad == 0 and has_unnamed(connection, self.row_id):
            return RefsListing(passes=2), saved
        rest = self._write(connection, (), last_page=True, listing=listing, seen_at=seen_at)
        return listing, rest._replace(
            new=saved.new, moved=saved.moved, changes=[*saved.changes, *rest.changes]
        )

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Keep the refs that are known; try again at once where a link is refused, else later."""
        run, status = self.run, self.run.failures.isolate(error)
        if status in (400, 404) and self.listing.next is not None and self.listing.passes < PASSES:
            # The repository or its workspace has another name since the last page.
            return [self._with(RefsListing(passes=self.listing.passes + 1))]
        with run.store.transaction(), run.cursors() as cursors:
            cursors.refs(self.row_id).drop()
            run.failures.add(
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
