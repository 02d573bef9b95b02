"""Listing branches and tags: of every repository that is new, was updated, or has not been asked for long."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec

from mirror.errors import MirrorError, UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.store.refs import SavedRefs, has_refs, has_unnamed, save_main_branch, save_refs
from mirror.store.repositories import reopen
from mirror.store.runs import Failure
from mirror.sync.engine import Step
from mirror.sync.listing_state import PASSES, Landmark, next_landmark
from mirror.sync.run import Run
from mirror.times import to_text
from mirror.upstream.protocol import Page

UNTOLD = timedelta(days=1)
"""After this, refs are asked for anew where nothing tells of a push."""
_CHUNK = 500
_STALE = """
    FROM repositories AS r
    WHERE upstream_id = :upstream AND refs_stale AND deleted_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM sync_failures AS f
        WHERE f.repository_id = r.id AND f.kind = 'refs' AND f.next_try_at > :now)"""


def count_stale(run: Run) -> int:
    """Count the repositories whose refs are to be asked for."""
    values = {"upstream": run.upstream_id, "now": run.now_text()}
    return int(run.store.row(f"SELECT count(*) {_STALE}", values)[0])


def mark_old(run: Run) -> None:
    """Let refs be asked for anew once they are older than `refs_every`: tags may move unannounced.

    Where no `updated_at` is told (Data Center), a push is as unannounced: those are asked for every day, and
    whenever everything is. Those of a repository that was listed while no refs were mirrored (`refs =
    "none"`) are as old as can be. Single refs that were not understood are read again at their next try.
    """
    every = timedelta(seconds=run.config.refs_every)
    before, untold = to_text(run.now() - every), to_text(run.now() - min(every, UNTOLD))
    with run.store.transaction() as connection:
        connection.execute(
            """UPDATE repositories SET refs_stale = 1
               WHERE upstream_id = ? AND NOT refs_stale AND deleted_at IS NULL
                   AND (refs_synced_at IS NULL OR refs_synced_at < iif(updated_at IS NULL, ?, ?))""",
            (run.upstream_id, (run.round or run.now_text()) if run.full else untold, before),
        )
        connection.execute(
            """UPDATE repositories SET refs_stale = 1
               WHERE NOT refs_stale AND deleted_at IS NULL AND id IN (
                   SELECT repository_id FROM sync_failures
                   WHERE upstream_id = ? AND kind = 'ref' AND next_try_at <= ?)""",
            (run.upstream_id, run.now_text()),
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
        )
        if not rows:
            return
        for row_id, uuid, full_name, scm in rows:
            key = RepositoryKey(uuid=uuid, full_name=full_name, scm=scm)
            yield RefsStep(run, row_id, key, _place(run, row_id))
        last = rows[-1][0]


class RefsPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the listing of one repository's refs stands, between two pages of it.

    `pages` and `rows` count those of this pass, `bad` the rows not understood; `landmark` is an earlier link
    that tells when links go in a circle; `since` is when the first page of this pass was asked for.
    """

    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    rows: int = 0
    bad: int = 0
    passes: int = 1
    since: str = ""

    def after(self, page: Page[Ref], asked_at: str) -> "RefsPlace":
        """Return the place behind a page; raises UpstreamShapeError where the links go in a circle."""
        pages, rows = self.pages + 1, self.rows + len(page.rows) + len(page.bad)
        return RefsPlace(
            next=page.next,
            landmark=next_landmark(page, asked=self.next, landmark=self.landmark, pages=pages),
            pages=pages,
            rows=rows,
            bad=self.bad + len(page.bad),
            passes=self.passes,
            since=self.since if self.pages else asked_at,
        )


class RefsStep(Step):
    """Ask for a page of a repository's branches and tags."""

    def __init__(self, run: Run, row_id: int, key: RepositoryKey, place: RefsPlace) -> None:
        self.run, self.row_id, self.key, self.place = run, row_id, key, place
        self.asked_at = ""

    def ask(self) -> Page[Ref]:
        """Ask for the page."""
        self.asked_at = self.run.now_text()
        return self.run.upstream.fetch_refs(self.key, self.place.next)

    def save(self, answer: Page[Ref]) -> Sequence[Step]:
        """Write it, with where a listing of several pages goes on."""
        run, place = self.run, self.place.after(answer, self.asked_at)
        if self._is_doubtful(answer, place):
            return [RefsStep(run, self.row_id, self.key, RefsPlace(passes=2))]
        with run.store.transaction() as connection:
            saved = self._write(answer.rows, last_page=place.next is None and place.pages == 1, place=place)
            if place.next is None and place.pages > 1:
                place, saved = self._ended(place, saved)
            done = place.next is None and place.pages > 0
            self._save_main_branch(answer, place)
            if saved.changes:
                run.store.save_changes(saved.changes, run_id=run.id, at=run.now_text())
            if not done:
                run.save_cursor(_stream(self.row_id), msgspec.json.encode(place).decode())
            elif self.place != RefsPlace():
                run.drop_cursor(_stream(self.row_id))
            if done:
                run.answered_refs(self.row_id, understood=place.bad == 0)
            if done and place.bad == 0:
                reopen(connection, self.row_id, listed_since=place.since)
            for bad in answer.bad:
                what = f"{self.key.full_name}: {bad.what}"
                run.fail(Failure("ref", what, bad.error, repository_id=self.row_id))
        run.counts.refs_new += saved.new
        run.counts.refs_changed += saved.moved
        run.counts.refs_gone += saved.gone
        if not done:
            return [RefsStep(run, self.row_id, self.key, place)]
        run.report.step()
        return []

    def _is_doubtful(self, answer: Page[Ref], place: RefsPlace) -> bool:
        """Tell whether a listing ended too early to be believed: short of its own total, or without any ref.

        The second pass decides, since totals may count what cannot be seen, and the last ref may be deleted;
        raises UpstreamShapeError where it names none although the repository has a main branch.
        """
        if place.next is not None:
            return False
        if place.rows > 0:
            return place.passes == 1 and answer.size is not None and place.rows < answer.size
        store = self.run.store
        main = store.row("SELECT main_branch FROM repositories WHERE id = ?", (self.row_id,))[0]
        if place.passes > 1 and main is not None and not self._listing_tells_main_branch:
            raise UpstreamShapeError(f"there is a main branch {main}, and yet no ref is listed")
        return place.passes == 1 and (main is not None or has_refs(store.connection, self.row_id))

    def _write(self, rows: Sequence[Ref], *, last_page: bool, place: RefsPlace) -> SavedRefs:
        with self.run.store.transaction() as connection:
            return save_refs(
                connection,
                self.row_id,
                rows,
                first_page=place.pages == 1,
                last_page=last_page,
                keep_unnamed=place.bad > 0,
                seen_at=self.run.now_text(),
            )

    @property
    def _listing_tells_main_branch(self) -> bool:
        """Whether it is told with the branches, and not with the repository."""
        return self.run.config.kind == "datacenter" and self.run.config.refs == "api"

    def _save_main_branch(self, answer: Page[Ref], place: RefsPlace) -> None:
        """Write the main branch, where the branches tell it: none, if there are none."""
        if not self._listing_tells_main_branch:
            return
        main = next((ref.name for ref in answer.rows if ref.is_main), None)
        if main is not None or (place.next is None and place.rows == 0):
            with self.run.store.transaction() as connection:
                save_main_branch(connection, self.row_id, main)

    def _ended(self, place: RefsPlace, saved: SavedRefs) -> tuple[RefsPlace, SavedRefs]:
        """Drop what no page has named, or go back to the first page to make sure of it.

        A ref that is deleted while the pages are read pulls another one onto a page that was read already;
        so the second pass decides what is gone.
        """
        with self.run.store.transaction() as connection:
            if place.passes == 1 and place.bad == 0 and has_unnamed(connection, self.row_id):
                return RefsPlace(passes=2), saved
        rest = self._write((), last_page=True, place=place)
        return place, SavedRefs(saved.new, saved.moved, rest.gone, [*saved.changes, *rest.changes])

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Keep the refs that are known, and try again: now where a link is refused, else after a while."""
        run, status = self.run, self.run.isolate(error)
        if status in (400, 404) and self.place.next is not None and self.place.passes < PASSES:
            # The repository or its workspace has another name since the last page.
            return [RefsStep(run, self.row_id, self.key, RefsPlace(passes=self.place.passes + 1))]
        with run.store.transaction():
            run.drop_cursor(_stream(self.row_id))
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
        run.report.step()
        return []


def _stream(row_id: int) -> str:
    return f"refs:{row_id}"


def _place(run: Run, row_id: int) -> RefsPlace:
    """Read where the refs of a repository go on; what cannot be read begins anew."""
    try:
        return msgspec.json.decode(run.cursor(_stream(row_id)) or "{}", type=RefsPlace)
    except msgspec.MsgspecError:
        return RefsPlace()
