"""Where the crawl of each workspace stands, and what the mirror holds of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from mirror.config import UpstreamConfig
from mirror.model import Repository
from mirror.store import Store
from mirror.store.crawl_state import WorkspaceState
from mirror.store.cursors import Cursors
from mirror.sync.listing_state import as_of, is_identity
from mirror.times import Clock, to_text

_ALIVE = """FROM repositories WHERE deleted_at IS NULL
    AND owner_id = (SELECT id FROM users WHERE upstream_id = ? AND uuid = ?)"""


class Absent(NamedTuple):
    """A repository that a full listing did not name."""

    row_id: int
    uuid: str
    full_name: str


class WorkspaceStates:
    """The states of one upstream's workspaces, by the names that the workspaces are listed by.

    :param now: tells the time of the run; states ahead of it are corrected.
    """

    def __init__(self, store: Store, upstream_id: int, config: UpstreamConfig, now: Clock) -> None:
        self._store, self._upstream_id, self._config, self._now = store, upstream_id, config, now

    def read(self, workspace: str) -> WorkspaceState:
        """Read where the crawl of a workspace stands."""
        with self._cursors() as cursors:
            state = cursors.workspace(workspace).read() or WorkspaceState()
        return as_of(state, self._now(), self._config.overlap)

    def all(self) -> Iterator[tuple[str, WorkspaceState]]:
        """Yield the state of each configured workspace, or of all that were ever listed."""
        names = self._config.workspaces
        if names is None:
            with self._cursors() as cursors:
                names = tuple(cursors.workspace_names())
        for name in names:
            yield name, self.read(name)

    def left_out(self) -> list[str]:
        """Name the owners, by identity, whose workspaces were listed and are no longer configured."""
        if self._config.workspaces is None:
            return []
        configured = {name.lower() for name in self._config.workspaces}
        with self._cursors() as cursors:
            names = [n for n in cursors.workspace_names() if n not in configured and not is_identity(n)]
        owners = {self.read(name).owner_uuid for name in names}
        if owners:  # one may be configured by another name
            owners -= {state.owner_uuid for _, state in self.all()}
        return sorted(owner for owner in owners if owner is not None)

    def exists(self, workspace: str) -> bool:
        """Return whether a workspace has a state: it was listed, and no other name has taken it over."""
        with self._cursors() as cursors:
            return cursors.workspace(workspace).exists()

    def save(self, workspace: str, state: WorkspaceState) -> None:
        """Write where the crawl of a workspace stands; belongs into the transaction of its page."""
        now = to_text(self._now())
        with self._cursors() as cursors:
            cursors.workspace(workspace).save(msgspec.structs.replace(state, moved_at=now), at=now)

    def forget(self, workspace: str) -> None:
        """Forget where the crawl of a workspace stood; its rows stay."""
        with self._cursors() as cursors:
            cursors.workspace(workspace).drop()

    def owner_id(self, state: WorkspaceState) -> int | None:
        """Return the id of the workspace's row in `users`."""
        owner_id: int | None = self._store.value(
            "SELECT id FROM users WHERE upstream_id = ? AND uuid = ?", (self._upstream_id, state.owner_uuid)
        )
        return owner_id

    def has_left(self, answer: Repository) -> bool:
        """Return whether a repository has gone to an owner whose workspace is not listed here."""
        owner = answer.owner
        stays = self._store.row(
            """SELECT 1 FROM repositories r JOIN users u ON u.id = r.owner_id
               WHERE r.upstream_id = ? AND r.uuid = ? AND u.uuid = ?""",
            (self._upstream_id, answer.uuid, owner.uuid),
        )
        # By identity, since names change hands; a workspace that was never listed has nothing but its name.
        return stays is None and not any(
            state.owner_uuid == owner.uuid
            or (state.owner_uuid is None and name.lower() == (owner.username or "").lower())
            for name, state in self.all()
            if not state.gone
        )

    def alive(self, state: WorkspaceState) -> int:
        """Count the repositories that the mirror holds of a workspace, tombstones aside."""
        return int(self._store.value(f"SELECT count(*) {_ALIVE}", (self._upstream_id, state.owner_uuid)))

    def absent(self, state: WorkspaceState, since: str) -> list[Absent]:
        """List those of them that were last seen before a moment."""
        sql = f"SELECT id, uuid, full_name {_ALIVE} AND last_seen_at < ? ORDER BY id"
        return self._store.rows(sql, (self._upstream_id, state.owner_uuid, since), Absent)

    def count_absent(self, state: WorkspaceState, since: str) -> int:
        """Count those that were last seen before a moment."""
        sql = f"SELECT count(*) {_ALIVE} AND last_seen_at < ?"
        return int(self._store.value(sql, (self._upstream_id, state.owner_uuid, since)))

    @contextmanager
    def _cursors(self) -> Iterator[Cursors]:
        with self._store.reading() as connection:
            yield Cursors(connection, self._upstream_id)
