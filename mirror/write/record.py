"""The mirror's side of a write: what the mirror knows before it, and what it shows after it.

Before: which upstream holds the namespace, and which row is meant. After: the answer, its changes and its
line in the audit, saved in one transaction.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import msgspec

from mirror.config import Config, UpstreamConfig
from mirror.errors import ConfigError, Interrupted, MirrorError, NotFound, OutcomeUnknown, StoreError
from mirror.model import Ref, Repository, RepositoryKey, RepositorySettings
from mirror.store import Store
from mirror.store.crawl_state import Hint
from mirror.store.cursors import Cursors
from mirror.store.refs import save_main_branch, save_refs
from mirror.store.repositories import Look, mark_gone
from mirror.store.schema import NAMESAKES_ORDER
from mirror.store.writes import Outcome, Written, drop_unused, drop_written, link_written, save_written
from mirror.times import Clock, to_text
from mirror.upstream.connect import url_of
from mirror.upstream.protocol import Upstream
from mirror.write.outcome import Wanted

# The most pages of refs to read at once, since a caller waits. The next sync reads the rest.
MOST_PAGES = 20


# Raises what ends a write that its caller may not do any more; called with the mirror.
Confirm = Callable[[sqlite3.Connection], None]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored repository that a write changes, and the upstream that has it."""

    upstream: UpstreamConfig
    row_id: int
    key: RepositoryKey


def choose_upstream(config: Config, store: Store, owner: str, upstream: str) -> tuple[UpstreamConfig, str]:
    """Choose the upstream that has a namespace; return it, and the namespace as it is spelled there.

    `upstream` is the name that the user gave, or "". Raises NotFound if no upstream is known to have the
    namespace; ConfigError if several have it, if `upstream` is unknown, or has no credential.
    """
    mirrored = store.rows(
        """SELECT up.name, u.username FROM users u JOIN upstreams up ON up.id = u.upstream_id
           WHERE u.username = ? COLLATE NOCASE AND u.is_owner AND u.deleted_at IS NULL""",
        (owner,),
    )
    spellings = {
        candidate.name: workspace
        for candidate in config.upstreams
        for workspace in candidate.workspaces or ()
        if workspace.lower() == owner.lower()
    } | dict(mirrored)  # the mirror has the spelling of the upstream
    if upstream:
        return _writable(_upstream_named(config, upstream)), spellings.get(upstream, owner)
    if not spellings:
        raise NotFound(
            f"no upstream is known to hold {owner}: name it in `workspaces` of one and run `mirror sync`,"
            f" or say which with --upstream ({_names(config)})"
        )
    chosen = _holder(config, owner, spellings)
    return _writable(chosen), spellings[chosen.name]


class _Held(NamedTuple):
    upstream: str
    row_id: int
    uuid: str
    full_name: str
    scm: str | None


def find_target(config: Config, store: Store, full_name: str, upstream: str, *, uuid: str | None) -> Target:
    """Find a living repository of the mirror by its name, in any case; raises as `choose_upstream` does.

    :param uuid: of the one that is meant, if that is known: several may have the name.
    """
    rows = store.rows(
        f"""SELECT up.name, r.id, r.uuid, r.full_name, r.scm
            FROM repositories r JOIN upstreams up ON up.id = r.upstream_id
            WHERE r.full_name = :name COLLATE NOCASE AND r.deleted_at IS NULL
            ORDER BY r.uuid IS NOT :uuid, r.full_name COLLATE BINARY <> :name, {NAMESAKES_ORDER}""",
        {"name": full_name, "uuid": uuid},
        _Held,
    )
    if not rows:
        raise NotFound(f"the mirror holds no repository {full_name}; `mirror sync` adds new ones")
    holders = {row.upstream: row for row in reversed(rows)}  # the first row of each upstream
    chosen = _upstream_named(config, upstream) if upstream else _holder(config, full_name, holders)
    held = holders.get(chosen.name)
    if held is None:
        raise NotFound(f"the mirror holds no repository {full_name} of upstream {upstream}")
    if uuid not in (None, held.uuid):
        raise NotFound(f"{full_name} is another repository now")
    return Target(
        upstream=_writable(chosen),
        row_id=held.row_id,
        key=RepositoryKey(uuid=held.uuid, full_name=held.full_name, scm=held.scm),
    )


def _holder(config: Config, what: str, holders: Mapping[str, object]) -> UpstreamConfig:
    """Return the only configured upstream that holds something; raises ConfigError if it is not one."""
    found = [candidate for candidate in config.upstreams if candidate.name in holders]
    if not found:
        raise ConfigError(
            f"{what} was mirrored from {', '.join(holders)}, which the configuration no longer names:"
            f" there is {_names(config)}"
        )
    if len(found) > 1:
        names = " and in ".join(candidate.name for candidate in found)
        raise ConfigError(f"{what} is in {names}; say which one with --upstream")
    return found[0]


def _upstream_named(config: Config, name: str) -> UpstreamConfig:
    for upstream in config.upstreams:
        if upstream.name == name:
            return upstream
    raise ConfigError(f"unknown upstream {name!r} (configured: {_names(config)})")


def _writable(upstream: UpstreamConfig) -> UpstreamConfig:
    """Return the upstream; raises ConfigError if it has no credential, before anything is sent."""
    if upstream.credential is None:
        raise ConfigError(
            f"upstream {upstream.name} has no credential, which every write needs:"
            f' set `credential = "env:NAME"` or "file:PATH" in its section'
        )
    return upstream


def _names(config: Config) -> str:
    return ", ".join(upstream.name for upstream in config.upstreams)


class WriteRecord:
    """Reads and writes the mirror for one write to one upstream; `by` is the caller, for the audit."""

    def __init__(
        self, store: Store, upstream: UpstreamConfig, by: str, clock: Clock, confirm: Confirm
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._by = by
        self._clock = clock
        self._confirm = confirm
        self._begun = 0

    @contextmanager
    def auditing(self, action: str, full_name: str) -> Iterator[None]:
        """Record a write as unknown before it is requested: the process may end at any moment.

        `save` and `save_deleted` record what became of it; of one that was not done, nothing is left. Raises
        Interrupted for Ctrl-C and SIGTERM, and what `confirm` raises.
        """
        is_new = self._upstream_id is None
        try:
            with self._store.transaction() as connection:
                self._confirm(connection)
                self._begun = self._record(action, "", full_name, "unknown")
        except StoreError as error:
            raise StoreError(f"{error}; the {action} of {full_name} was not requested") from error
        try:
            yield
        except KeyboardInterrupt:
            why = f"interrupted: the {action} of {full_name} may have been requested and done"
            raise Interrupted(f"{why}; check before you repeat it") from None
        except (OutcomeUnknown, StoreError):  # a StoreError comes after the answer of the upstream
            raise
        except MirrorError:
            with suppress(StoreError), self._store.transaction() as connection:
                drop_written(connection, self._begun)
            if is_new:
                with suppress(StoreError), self._store.transaction() as connection:
                    drop_unused(connection, self._upstream.name)
            raise

    def wanted(self, full_name: str, settings: RepositorySettings) -> Wanted:
        """Return what a write is to make now, with what the mirror knows by its name before."""
        uuid: str | None = self._store.value(
            """SELECT uuid FROM repositories
               WHERE upstream_id = ? AND full_name = ? COLLATE NOCASE AND deleted_at IS NULL""",
            (self._upstream_id, full_name),
        )
        return Wanted(full_name=full_name, settings=settings, known_uuid=uuid, since=self._clock())

    def newest_scm(self, owner: str) -> str | None:
        """Return the `scm` of an owner's newest repository."""
        scm: str | None = self._store.value(
            """SELECT r.scm FROM users u JOIN repositories r ON r.owner_id = u.id
               WHERE u.upstream_id = ? AND u.username = ? COLLATE NOCASE
                   AND r.deleted_at IS NULL AND r.scm IS NOT NULL
               ORDER BY r.created_at DESC, r.id DESC LIMIT 1""",
            (self._upstream_id, owner),
        )
        return scm

    def rows_named(self, made: Repository) -> list[tuple[int, RepositoryKey]]:
        """List living rows with the same name but another identity: their names are outdated."""
        rows = self._store.rows(
            """SELECT id, uuid, full_name, scm FROM repositories
               WHERE upstream_id = ? AND full_name = ? COLLATE NOCASE AND deleted_at IS NULL AND uuid <> ?""",
            (self._upstream_id, made.full_name, made.uuid),
        )
        return [
            (row_id, RepositoryKey(uuid=uuid, full_name=name, scm=scm)) for row_id, uuid, name, scm in rows
        ]

    def save(
        self,
        action: str,
        made: Repository,
        *,
        displaced: Sequence[tuple[int, Repository | None]] = (),
        renamed: int | None = None,
    ) -> None:
        """Save what the upstream answered, with its changes and its line in the audit.

        :param displaced: rows that had the name before, with what the upstream has for each; None if it is
            gone.
        :param renamed: the row of the same repository under its former identity, if names are identities.
        """
        with self._transaction(f"{action} of {made.full_name}"):
            for row_id, row in displaced:
                if row is None:
                    self._gone(row_id, "deleted")
            others = [row for _, row in displaced if row is not None]
            if others:
                self._save_rows(others)
            if renamed is not None:
                self._gone(renamed, f"renamed to {made.full_name}")
            # With its record first, it brings a deleted row back. That is right where a name is used again,
            # but not after an update: the repository was deleted while its answer was on the way.
            may_come_back = action != "update" or renamed is not None
            if not may_come_back:
                self._save_rows([made])
            number = self._done(action, made.uuid, made.full_name)
            if may_come_back:
                self._save_rows([made])
            link_written(self._store.connection, number, made.uuid)

    def save_present(self, row: Repository) -> None:
        """Save a repository as the upstream has it, without a write."""
        with self._store.transaction():
            self._save_rows([row])

    def save_deleted(self, target: Target) -> None:
        """Turn a repository that the upstream deleted into a tombstone."""
        with self._transaction(f"delete of {target.key.full_name}"):
            self._gone(target.row_id, "deleted")
            self._done("delete", target.key.uuid, target.key.full_name)

    def row_without_refs(self, made: Repository) -> int | None:
        """Return the row of a repository whose refs are mirrored but were never read, else None."""
        row_id: int | None = self._store.value(
            """SELECT id FROM repositories
               WHERE upstream_id = ? AND uuid = ? AND refs_synced_at IS NULL AND deleted_at IS NULL""",
            (self._upstream_id, made.uuid),
        )
        return row_id if self._upstream.refs != "none" else None

    def save_refs(self, row_id: int, refs: Sequence[Ref]) -> None:
        """Save all refs of a repository whose refs were never read."""
        main = next((ref.name for ref in refs if ref.is_main), None)
        with self._store.transaction() as connection:
            save_refs(connection, row_id, refs, seen_at=self._now())
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
        """The id of the upstream's row; None before anything of it is saved."""
        found: int | None = self._store.value(
            "SELECT id FROM upstreams WHERE name = ?", (self._upstream.name,)
        )
        return found

    def _save_rows(self, rows: Sequence[Repository]) -> None:
        look = Look(self._now(), with_refs=self._upstream.refs != "none")
        saved = self._store.save_page(self._save_upstream(), rows, look)
        for row, why in saved.refused:
            raise StoreError(f"the answer cannot be written: {row.full_name}: {why}")

    def _save_upstream(self) -> int:
        """Return the id of the upstream's row. Only a sync changes the row: it has to know a new address."""
        upstream, known = self._upstream, self._upstream_id
        if known is not None:
            return known
        return self._store.save_upstream(upstream.name, upstream.kind, url_of(upstream), refs=upstream.refs)

    def _gone(self, row_id: int, reason: str) -> None:
        """Mark a row as gone, unless a sync has done so already."""
        if self._store.row("SELECT 1 FROM repositories WHERE id = ? AND deleted_at IS NULL", (row_id,)):
            with self._store.transaction() as connection:
                changes = mark_gone(connection, row_id, reason=reason, seen_at=self._now())
                self._store.save_changes(changes, run_id=None, at=self._now())

    def _done(self, action: str, uuid: str, full_name: str) -> int:
        """Record a write as done instead of unknown, in the order in which writes were done."""
        drop_written(self._store.connection, self._begun)
        return self._record(action, uuid, full_name, "done")

    def _record(self, action: str, uuid: str, full_name: str, outcome: Outcome) -> int:
        written = Written(self._now(), self._by, action, full_name, outcome, uuid)
        with self._store.transaction() as connection:
            upstream_id = self._save_upstream()
            return save_written(connection, upstream_id, written)

    @contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        """Save all or nothing. An error says that the upstream has done its part."""
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

    The write is done, whatever fails here. If refs cannot be read, a hint makes the next run read them. A
    fork always gets such a hint, since upstreams may copy its refs after they have answered.
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
    """Return all refs of a repository; None if some cannot be read, or are not there yet."""
    refs, cursor = list[Ref](), None
    for _ in range(MOST_PAGES):
        try:
            page = upstream.fetch_refs(made.key, cursor)
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
