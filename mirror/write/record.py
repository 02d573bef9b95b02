"""The mirror's side of a write: what it knows before it, and what it shows after it, in one transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mirror.config import UpstreamConfig
from mirror.errors import MirrorError, OutcomeUnknown, StoreError
from mirror.model import Ref, Repository, RepositoryKey
from mirror.store import Store
from mirror.store.audit import Outcome, Written, link_written, save_written
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.refs import save_main_branch, save_refs
from mirror.store.repositories import mark_gone
from mirror.times import Clock, to_text
from mirror.upstream.connect import url_of
from mirror.upstream.protocol import Upstream
from mirror.write.target import Target

MOST_PAGES = 20
"""Pages of refs that are read at once; more are left to the next sync, because a caller is waiting."""


class WriteRecord:
    """Reads and writes the mirror for one write to one upstream; `by` is the caller, for the audit."""

    def __init__(self, store: Store, upstream: UpstreamConfig, by: str, clock: Clock) -> None:
        self._store = store
        self._upstream = upstream
        self._by = by
        self._clock = clock

    @contextmanager
    def auditing(self, action: str, full_name: str) -> Iterator[None]:
        """Record a write whose outcome is unknown; any other error leaves no trace."""
        try:
            yield
        except OutcomeUnknown:
            self._record(action, "", full_name, "unknown")
            raise

    def uuid_of(self, full_name: str) -> str | None:
        """Return the uuid of the living repository that the mirror knows by a name."""
        row = self._store.row(
            """SELECT uuid FROM repositories
               WHERE upstream_id = ? AND full_name = ? COLLATE NOCASE AND deleted_at IS NULL""",
            (self._upstream_id, full_name),
        )
        return str(row[0]) if row else None

    def newest_scm(self, owner: str) -> str | None:
        """Return the `scm` of an owner's newest repository."""
        row = self._store.row(
            """SELECT r.scm FROM users u JOIN repositories r ON r.owner_id = u.id
               WHERE u.upstream_id = ? AND u.username = ? COLLATE NOCASE
                   AND r.deleted_at IS NULL AND r.scm IS NOT NULL
               ORDER BY r.created_at DESC, r.id DESC LIMIT 1""",
            (self._upstream_id, owner),
        )
        return str(row[0]) if row else None

    def rows_named(self, made: Repository) -> list[tuple[int, RepositoryKey]]:
        """List living rows of the same name but another identity: their name is out of date."""
        rows = self._store.rows(
            """SELECT id, uuid, full_name, scm FROM repositories
               WHERE upstream_id = ? AND full_name = ? COLLATE NOCASE AND deleted_at IS NULL AND uuid <> ?""",
            (self._upstream_id, made.full_name, made.uuid),
        )
        return [(row[0], RepositoryKey(uuid=row[1], full_name=row[2], scm=row[3])) for row in rows]

    def save(
        self,
        action: str,
        made: Repository,
        *,
        displaced: Sequence[tuple[int, Repository | None]] = (),
        renamed: int | None = None,
    ) -> None:
        """Save what the upstream answered, with its changes and its line in the audit.

        :param displaced: rows that had the name before, as the upstream has them now; None for gone ones.
        :param renamed: the row of the same repository under its former identity, where names are identities.
        """
        with self._transaction(f"{action} of {made.full_name}"):
            for row_id, row in displaced:
                if row is None:
                    self._gone(row_id, "deleted")
            self._save([row for _, row in displaced if row is not None])
            number = self._record(action, made.uuid, made.full_name)  # first: a deleted row may come back
            if renamed is not None:
                self._gone(renamed, f"renamed to {made.full_name}")
            self._save([made])
            link_written(self._store.connection, number, made.uuid)

    def save_deleted(self, target: Target) -> None:
        """Turn a repository that the upstream deleted into a tombstone."""
        with self._transaction(f"delete of {target.key.full_name}"):
            self._gone(target.row_id, "deleted")
            self._record("delete", target.key.uuid, target.key.full_name)

    def row_without_refs(self, made: Repository) -> int | None:
        """Return the row of a repository whose refs are mirrored but were never read, else None."""
        row = self._store.row(
            """SELECT id FROM repositories
               WHERE upstream_id = ? AND uuid = ? AND refs_synced_at IS NULL AND deleted_at IS NULL""",
            (self._upstream_id, made.uuid),
        )
        return int(row[0]) if row and self._upstream.refs != "none" else None

    def save_refs(self, row_id: int, refs: Sequence[Ref]) -> None:
        """Save all refs of a repository whose refs were never read."""
        main = next((ref.name for ref in refs if ref.is_main), None)
        with self._store.transaction() as connection:
            save_refs(connection, row_id, refs, first_page=True, last_page=True, seen_at=self._now())
            if main is not None:
                save_main_branch(connection, row_id, main)

    def read_refs_later(self, made: Repository) -> None:
        """Leave a hint, so that the next run reads the refs; a service starts one within seconds."""
        with self._store.transaction() as connection:
            upstream_id = self._save_upstream()
            hint = Hint(uuid=made.uuid, row=False, at=self._now())
            Cursors(connection, upstream_id).hints.add(hint)

    @property
    def _upstream_id(self) -> int | None:
        """The row of the upstream, None before anything of it is saved."""
        row = self._store.row("SELECT id FROM upstreams WHERE name = ?", (self._upstream.name,))
        return int(row[0]) if row else None

    def _save(self, rows: Sequence[Repository]) -> None:
        upstream = self._upstream
        saved = self._store.save_page(
            self._save_upstream(),
            rows,
            run_id=None,
            seen_at=self._now(),
            with_refs=upstream.refs != "none",
            first_listing=False,
        )
        for row, why in saved.refused:
            raise StoreError(f"the answer cannot be written: {row.full_name}: {why}")

    def _save_upstream(self) -> int:
        upstream = self._upstream
        return self._store.save_upstream(upstream.name, upstream.kind, url_of(upstream), refs=upstream.refs)

    def _gone(self, row_id: int, reason: str) -> None:
        """Mark a row as gone, unless a sync has done so already."""
        if self._store.row("SELECT 1 FROM repositories WHERE id = ? AND deleted_at IS NULL", (row_id,)):
            with self._store.transaction() as connection:
                changes = mark_gone(connection, row_id, reason=reason, seen_at=self._now())
                self._store.save_changes(changes, run_id=None, at=self._now())

    def _record(self, action: str, uuid: str, full_name: str, outcome: Outcome = "done") -> int:
        written = Written(self._now(), self._by, action, full_name, outcome, uuid)
        with self._store.transaction() as connection:
            upstream_id = self._save_upstream()
            return save_written(connection, upstream_id, written)

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        """Save all or nothing; an error says that the upstream has done its part."""
        try:
            with self._store.transaction():
                yield
        except StoreError as error:
            raise StoreError(
                f"the upstream has done it ({what}), but the mirror does not show it: {error};"
                " the next sync brings it"
            ) from error

    def _now(self) -> str:
        return to_text(self._clock())


def read_refs(record: WriteRecord, upstream: Upstream, made: Repository) -> None:
    """Read and save the refs of a repository whose refs were never read; raises nothing.

    The write is done, whatever fails here. Refs that could not be read are left to the next run, by a hint.
    So are those of a fork, because upstreams may copy them after they have answered.
    """
    try:
        row_id = record.row_without_refs(made)
        if row_id is None:
            return
        refs = _all_refs(upstream, made)
        if refs is not None:
            record.save_refs(row_id, refs)
        if refs is None or made.parent_uuid is not None:
            record.read_refs_later(made)
    except MirrorError:
        return


def _all_refs(upstream: Upstream, made: Repository) -> list[Ref] | None:
    """Return all refs of a repository; None where they cannot be read, or some are not there yet."""
    key = RepositoryKey(uuid=made.uuid, full_name=made.full_name, scm=made.scm)
    refs, cursor = list[Ref](), None
    for _ in range(MOST_PAGES):
        try:
            page = upstream.fetch_refs(key, cursor)
        except MirrorError:
            return None
        refs += page.rows
        cursor = page.next
        if page.bad:
            return None
        if cursor is None:
            has_some = made.main_branch is not None or made.parent_uuid is not None
            return refs if refs or not has_some else None
    return None
