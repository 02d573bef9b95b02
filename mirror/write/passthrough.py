"""Writes pass through: the upstream is asked first, and the mirror shows what it answered at once.

Each write opens the file and the upstream for itself, so any number of them may be under way, in any threads
and processes, while a sync runs: the mirror is written in one short transaction that waits its turn. That
cannot harm a sync, though it does not take the sync's lock. Rows are known by the upstream's own identity,
what is saved is what the upstream said, and where a page that the sync asked for before the write is saved
after it, the next listing puts that right: the write moved `updated_on`, or the count of repositories.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from mirror.config import Config, Duration, Retry, UpstreamConfig
from mirror.errors import BudgetSpent, MirrorError, StoreError, UpstreamBusy, UpstreamRefused
from mirror.model import Repository, RepositoryKey, RepositorySettings, slug_of
from mirror.store import Store
from mirror.store.ledger import RequestLedger
from mirror.times import Clock, utc_now
from mirror.upstream.connect import connect
from mirror.upstream.protocol import Upstream
from mirror.upstream.transport import Transport
from mirror.write.outcome import (
    ABSENT,
    carried_out,
    look_for_created,
    look_for_deleted,
    look_for_fork,
    look_for_update,
)
from mirror.write.record import Saving, read_refs
from mirror.write.target import known_repository, upstream_for

LONGEST_PAUSE = 10.0
"""Seconds that a write may wait between two tries; somebody is waiting for its answer."""

MOST_TRIES = 3


class PassThrough:
    """Creates, updates, deletes and forks repositories upstream, and in the mirror.

    Every method takes the `upstream` to use where several hold the name, and in `by` who wants it, for the
    record. All raise ConfigError and NotFound before anything is asked, CredentialsRefused, UpstreamRefused
    and UpstreamBusy where nothing was changed, OutcomeUnknown where that is not known, and StoreError, which
    says whether the upstream did it. They may be called from any thread.
    """

    def __init__(
        self,
        config: Config,
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Clock = utc_now,
        sleep: Callable[[float], None] = time.sleep,
        transport: Transport | None = None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._clock = clock
        self._sleep = sleep
        self._transport = transport

    def create(
        self, owner: str, settings: RepositorySettings, *, by: str, slug: str = "", upstream: str = ""
    ) -> Repository:
        """Create a repository; without `slug` it is made of the name.

        Without `scm` it is of the kind of the owner's newest one, else hg, as in API 1.0; where upstreams
        know git alone, it is git.
        """
        slug = slug or _slug_of(settings.name or "")
        with self._store() as store:
            chosen, owner = upstream_for(self._config, store, owner, upstream)
            saving = Saving(store, chosen, by, self._clock)
            full_name, taken_by, since = f"{owner}/{slug}", saving.uuid_of(f"{owner}/{slug}"), self._clock()
            with self._connected(chosen, store) as there, saving.asking("create", full_name):
                if settings.scm is None:
                    scm = (saving.last_scm(owner) or "hg") if there.knows_hg else "git"
                    settings = msgspec.structs.replace(settings, scm=scm)
                made = carried_out(
                    f"creating {full_name}",
                    lambda: there.create_repository(owner, slug, settings),
                    lambda: look_for_created(there, full_name, taken_by=taken_by, since=since),
                )
                saving.saved("create", made, displaced=_displaced(saving, there, made))
                read_refs(saving, there, made)
                return made

    def update(
        self, full_name: str, settings: RepositorySettings, *, by: str, upstream: str = ""
    ) -> Repository:
        """Change settings; another name moves the slug, and the row and its history stay."""
        with self._store() as store:
            known = known_repository(self._config, store, full_name, upstream)
            settings = msgspec.structs.replace(settings, scm=None)  # which nothing changes
            saving = Saving(store, known.upstream, by, self._clock)
            with self._connected(known.upstream, store) as there, saving.asking("update", full_name):
                key = _key(there.fetch_repository(known.key))  # a PUT to nothing would create something
                made = carried_out(
                    f"updating {known.key.full_name}",
                    lambda: there.update_repository(key, settings),
                    lambda: look_for_update(there, key, settings),
                )
                displaced = _displaced(saving, there, made)
                renamed = known.row_id if made.uuid != known.key.uuid else None
                saving.saved("update", made, displaced=displaced, renamed=renamed)
                if renamed is not None:
                    read_refs(saving, there, made)
                return made

    def delete(self, full_name: str, *, by: str, upstream: str = "") -> None:
        """Delete a repository upstream; its row becomes a tombstone, with its refs."""
        with self._store() as store:
            known = known_repository(self._config, store, full_name, upstream)
            saving = Saving(store, known.upstream, by, self._clock)
            with self._connected(known.upstream, store) as there, saving.asking("delete", full_name):
                key = _key(there.fetch_repository(known.key))
                if key.full_name.lower() != known.key.full_name.lower():
                    raise UpstreamRefused(
                        f"{known.key.full_name} is called {key.full_name} upstream by now: nothing was"
                        " deleted; `mirror sync`, then delete it by that name",
                        status=409,
                    )

                def ask() -> bool:
                    there.delete_repository(key)
                    return True

                carried_out(f"deleting {key.full_name}", ask, lambda: look_for_deleted(there, key))
            saving.deleted(known)

    def fork(
        self, full_name: str, owner: str, settings: RepositorySettings, *, by: str, upstream: str = ""
    ) -> Repository:
        """Copy a repository into a namespace of the same upstream; unless said, what is private stays so."""
        with self._store() as store:
            known = known_repository(self._config, store, full_name, upstream)
            _, owner = upstream_for(self._config, store, owner, known.upstream.name)
            if known.is_private and settings.is_private is None:
                settings = msgspec.structs.replace(settings, is_private=True)
            name = settings.name or known.key.slug
            settings = msgspec.structs.replace(settings, name=name, scm=None)
            saving = Saving(store, known.upstream, by, self._clock)
            fork_name, since = f"{owner}/{_slug_of(name)}", self._clock()
            taken_by = saving.uuid_of(fork_name)
            with self._connected(known.upstream, store) as there, saving.asking("fork", fork_name):
                made = carried_out(
                    f"forking {known.key.full_name} as {fork_name}",
                    lambda: there.fork_repository(known.key, owner, settings),
                    lambda: look_for_fork(there, fork_name, known.key, taken_by=taken_by, since=since),
                )
                saving.saved("fork", made, displaced=_displaced(saving, there, made))
                read_refs(saving, there, made)
                return made

    @contextmanager
    def _store(self) -> Iterator[Store]:
        """Open the mirror, which must be there already; turn a spent budget into a plain refusal."""
        path = Path(self._config.database)
        if not path.is_file():
            raise StoreError(f"{path}: no mirror there yet; `mirror sync` makes one")
        with Store(path) as store:
            try:
                yield store
            except BudgetSpent as error:  # which ends a sync well, but nothing of this write was done
                seconds = max(0.0, (error.resumes_at - self._clock()).total_seconds())
                raise UpstreamBusy(f"{error}; nothing was changed", status=429, retry_after=seconds) from None

    @contextmanager
    def _connected(self, config: UpstreamConfig, store: Store) -> Iterator[Upstream]:
        """Connect to an upstream for one write, with little patience."""
        retry = Retry(
            attempts=min(config.retry.attempts, MOST_TRIES),
            first_delay=config.retry.first_delay,
            max_delay=Duration(min(config.retry.max_delay, LONGEST_PAUSE)),
        )
        upstream, _ = connect(
            msgspec.structs.replace(config, retry=retry),
            ledger=RequestLedger(store),
            wait=self._wait,
            for_write=True,
            may_wait=False,
            clock=self._clock,
            environ=self._environ,
            transport=self._transport,
        )
        with closing(upstream):
            yield upstream

    def _wait(self, seconds: float, why: str) -> None:
        if seconds > LONGEST_PAUSE:
            raise BudgetSpent(why, resumes_at=self._clock() + timedelta(seconds=seconds))
        self._sleep(seconds)


def _slug_of(name: str) -> str:
    """Return the slug of a name; raises UpstreamRefused 400 where nothing is left of it."""
    slug = slug_of(name)
    if not slug:
        raise UpstreamRefused(f"name: {name!r} has nothing that an address can be made of", status=400)
    return slug


def _key(row: Repository) -> RepositoryKey:
    return RepositoryKey(uuid=row.uuid, full_name=row.full_name, scm=row.scm)


def _displaced(saving: Saving, upstream: Upstream, made: Repository) -> list[tuple[int, Repository | None]]:
    """Ask what became of mirrored repositories whose name the new one has; None for one that is gone.

    They were renamed or deleted since the last sync. One that cannot be asked for stays as it is.
    """
    found = list[tuple[int, Repository | None]]()
    for row_id, key in saving.others_called(made):
        try:
            found.append((row_id, upstream.fetch_repository(key)))
        except UpstreamRefused as error:
            if error.status in ABSENT:
                found.append((row_id, None))
        except MirrorError:
            continue
    return found
