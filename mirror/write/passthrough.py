"""Writes pass through: first to the upstream, then what it answered is saved in the mirror.

Each write opens the database and the upstream itself, so any number may run at once, in threads and
processes, and beside a sync. They do not take the lock of a sync, and cannot harm it: a write is one short
transaction, and rows are identified by the upstream's identity. A sync may save a listing page that it
requested before the write. The next listing corrects that, since the write changed `updated_on` or the number
of repositories.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from mirror.config import Config, Duration, Retry, UpstreamConfig
from mirror.errors import (
    BudgetSpent,
    MirrorError,
    StoreError,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import Repository, RepositoryKey, RepositorySettings, slug_of
from mirror.store import Store
from mirror.store.ledger import RequestLedger
from mirror.store.repositories import is_named
from mirror.times import Clock, utc_now
from mirror.upstream.connect import connect
from mirror.upstream.protocol import Upstream
from mirror.upstream.transport import Transport
from mirror.write.outcome import ABSENT, do_once, find_created, find_deleted, find_fork, find_updated
from mirror.write.record import Confirm, WriteRecord, choose_upstream, find_target, read_refs

LONGEST_PAUSE = 10.0  # the longest wait before a retry, in seconds: a caller is waiting

MOST_TRIES = 3  # attempts of a request: a caller waits


class PassThrough:
    """Creates, updates, deletes and forks repositories upstream and in the mirror; safe in any thread.

    `by` is the name of the caller, for the audit. `upstream` chooses one if several have the repository, and
    `uuid` is that of the repository that the caller saw under the name.
    The methods raise ConfigError and NotFound before anything is sent; CredentialsRefused, UpstreamRefused
    and UpstreamBusy if nothing was changed; OutcomeUnknown if that is not known; and StoreError, which says
    whether the upstream has done it.
    """

    def __init__(
        self,
        config: Config,
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Clock = utc_now,
        sleep: Callable[[float], None] = time.sleep,
        transport: Transport | None = None,
        confirm: Confirm = lambda _: None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._clock = clock
        self._sleep = sleep
        self._transport = transport
        self._confirm = confirm

    def confirmed(self, confirm: Confirm) -> "PassThrough":
        """Return one that calls `confirm` right before it sends a write; what that raises ends the write."""
        return PassThrough(
            self._config,
            environ=self._environ,
            clock=self._clock,
            sleep=self._sleep,
            transport=self._transport,
            confirm=confirm,
        )

    def create(
        self, owner: str, settings: RepositorySettings, *, by: str, slug: str = "", upstream: str = ""
    ) -> Repository:
        """Create a repository; by default its name makes the slug.

        Without `settings.scm` it is of the kind of the owner's newest repository, else hg as in API 1.0, or
        git if the upstream has nothing else.
        """
        name = settings.name or slug
        slug = slug or _slug_of(name)
        with self._store() as store:
            chosen, owner = choose_upstream(self._config, store, owner, upstream)
            record = WriteRecord(store, chosen, by, self._clock, self._confirm)
            full_name = f"{owner}/{slug}"
            with self._connected(chosen, store) as client:
                if client.knows_names_only and slug.lower() not in (name.lower(), slug_of(name)):
                    why = f"name: {chosen.name} makes the address of it, so {name!r} cannot be at {full_name}"
                    raise UpstreamRefused(why, status=400)
                if settings.scm is None:
                    scm = (record.newest_scm(owner) or "hg") if client.knows_hg else "git"
                    settings = msgspec.structs.replace(settings, scm=scm)
                wanted = record.wanted(full_name, settings)
                with record.auditing("create", full_name):
                    made = do_once(
                        f"creating {full_name}",
                        lambda: client.create_repository(owner, slug, settings),
                        lambda: find_created(client, wanted),
                    )
                    record.save("create", made, displaced=_displaced(record, client, made))
                read_refs(record, client, made)
                return made

    def update(
        self,
        full_name: str,
        settings: RepositorySettings,
        *,
        by: str,
        upstream: str = "",
        uuid: str | None = None,
    ) -> Repository:
        """Change settings. A new name changes the slug; the row and its history stay."""
        with self._store() as store:
            target = find_target(self._config, store, full_name, upstream, uuid=uuid)
            settings = msgspec.structs.replace(settings, scm=None)  # it cannot be changed
            record = WriteRecord(store, target.upstream, by, self._clock, self._confirm)
            with self._connected(target.upstream, store) as client:
                # With its present name: a PUT to an unused name would create a repository.
                before = client.fetch_repository(target.key)
                # Who may write to the former namespace may have no rights in the present one.
                if before.key.workspace.lower() != target.key.workspace.lower():
                    raise _called_otherwise(target.key, before, "update")
                with record.auditing("update", full_name):
                    made = do_once(
                        f"updating {target.key.full_name}",
                        lambda: _same(before, client.update_repository(before.key, settings)),
                        lambda: find_updated(client, before, settings),
                    )
                    displaced = _displaced(record, client, made)
                    renamed = target.row_id if made.uuid != target.key.uuid else None
                    record.save("update", made, displaced=displaced, renamed=renamed)
                if renamed is not None:
                    read_refs(record, client, made)
                return made

    def delete(
        self, full_name: str, *, by: str, upstream: str = "", uuid: str | None = None
    ) -> RepositoryKey:
        """Delete a repository upstream; its row becomes a tombstone, with its refs."""
        with self._store() as store:
            target = find_target(self._config, store, full_name, upstream, uuid=uuid)
            record = WriteRecord(store, target.upstream, by, self._clock, self._confirm)
            with self._connected(target.upstream, store) as client:
                now = client.fetch_repository(target.key)
                key = now.key
                if key.full_name.lower() != target.key.full_name.lower():
                    raise _called_otherwise(target.key, now, "delete")

                def ask() -> bool:
                    client.delete_repository(key)
                    return True

                with record.auditing("delete", full_name):
                    do_once(f"deleting {key.full_name}", ask, lambda: find_deleted(client, key))
                    record.save_deleted(target)
            return target.key

    def fork(
        self,
        full_name: str,
        owner: str,
        settings: RepositorySettings,
        *,
        by: str,
        upstream: str = "",
        uuid: str | None = None,
        private_in: str | None = None,
    ) -> Repository:
        """Copy a repository into a namespace of the same upstream; a private one stays private by default.

        `private_in`: the only namespace where the caller may see private ones, unlike the mirror's own
        credential; "" if there is none, None if there is no limit.
        """
        with self._store() as store:
            target = find_target(self._config, store, full_name, upstream, uuid=uuid)
            _, owner = choose_upstream(self._config, store, owner, target.upstream.name)
            name = settings.name or target.key.slug
            settings = msgspec.structs.replace(settings, name=name, scm=None)
            record = WriteRecord(store, target.upstream, by, self._clock, self._confirm)
            fork_name = f"{owner}/{_slug_of(name)}"
            with self._connected(target.upstream, store) as client:
                now = client.fetch_repository(target.key)
                _must_be_visible(record, now, full_name, private_in=private_in)
                if now.is_private and settings.is_private is None:
                    settings = msgspec.structs.replace(settings, is_private=True)
                wanted = record.wanted(fork_name, settings)
                with record.auditing("fork", fork_name):
                    made = do_once(
                        f"forking {target.key.full_name} as {fork_name}",
                        lambda: client.fork_repository(now.key, owner, settings),
                        lambda: find_fork(client, wanted, now.key),
                    )
                    record.save("fork", made, displaced=_displaced(record, client, made))
                read_refs(record, client, made)
                return made

    @contextmanager
    def _store(self) -> Iterator[Store]:
        """Open the existing database; a spent budget becomes UpstreamBusy."""
        path = Path(self._config.database)
        if not path.exists():
            raise StoreError(f"{path}: no mirror there yet; `mirror sync` makes one")
        with Store(path) as store:
            try:
                yield store
            except BudgetSpent as error:  # a sync would pause, but this write was not done
                seconds = max(0.0, (error.resumes_at - self._clock()).total_seconds())
                raise UpstreamBusy(f"{error}; nothing was changed", status=429, retry_after=seconds) from None

    @contextmanager
    def _connected(self, config: UpstreamConfig, store: Store) -> Iterator[Upstream]:
        """Connect to an upstream for one write, with few retries and short pauses."""
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
    """Return the slug of a name; raises UpstreamRefused 400 if it would be empty."""
    slug = slug_of(name)
    if not slug:
        raise UpstreamRefused(f"name: {name!r} cannot be turned into an address", status=400)
    return slug


def _called_otherwise(known: RepositoryKey, now: Repository, what: str) -> UpstreamRefused:
    # Who may write to its former workspace may not see it in the present one.
    is_hidden = now.is_private and now.key.workspace.lower() != known.workspace.lower()
    return UpstreamRefused(
        f"{known.full_name} is called {now.full_name} upstream now: nothing was {what}d; `mirror sync`, then"
        f" {what} it by that name",
        status=409,
        words=f"{known.full_name} was transferred upstream: nothing was {what}d" if is_hidden else "",
    )


def _must_be_visible(record: WriteRecord, now: Repository, full_name: str, *, private_in: str | None) -> None:
    """Save a repository that is private by now, outside of a namespace, and raise UpstreamRefused 409."""
    if private_in is not None and now.is_private and now.key.workspace.lower() != private_in.lower():
        record.save_present(now)
        why = f"{full_name} has changed upstream since the last sync: nothing was forked"
        raise UpstreamRefused(why, status=409)


def _same(before: Repository, made: Repository) -> Repository:
    """Return what an update answered; raises UpstreamShapeError if that is another repository."""
    if made.uuid != before.uuid and not is_named(before.uuid):
        raise UpstreamShapeError(f"the answer is about another repository, {made.full_name}")
    return made


def _displaced(
    record: WriteRecord, upstream: Upstream, made: Repository
) -> list[tuple[int, Repository | None]]:
    """Request the mirrored repositories that had the new one's name; None stands for one that is gone.

    They were renamed or deleted since the last sync. One that cannot be requested stays as it is, so all of
    them where that takes a name, since the name is that of the new one.
    """
    if upstream.knows_names_only:
        return []
    found = list[tuple[int, Repository | None]]()
    for row_id, key in record.rows_named(made):
        try:
            found.append((row_id, upstream.fetch_repository(key)))
        except UpstreamRefused as error:
            if error.status in ABSENT:
                found.append((row_id, None))
        except MirrorError:
            continue
    return found
