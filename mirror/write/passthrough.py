"""Writes pass through: first to the upstream, then what it answered is saved in the mirror.

Each write opens the database and the upstream itself, so any number may run at once, in threads and
processes, and beside a sync. They do not take the lock of a sync, and cannot harm it: a write is one short
transaction, and rows are identified by the upstream's identity. A sync may save a listing page that it
requested before the write. The next listing corrects that, since the write changed `updated_on` or the number
of repositories.

If the answer of a write is lost, the upstream is asked whether it was done.
"""

import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from mirror.config import Config, Duration, Retry, UpstreamConfig
from mirror.errors import (
    BudgetSpent,
    MirrorError,
    OutcomeUnknown,
    StoreError,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import Repository, RepositoryKey, RepositorySettings, slug_of
from mirror.store import Store
from mirror.store.ledger import RequestLedger
from mirror.store.repositories import is_named
from mirror.times import Clock, from_text, utc_now
from mirror.upstream.connect import connect
from mirror.upstream.protocol import Upstream
from mirror.upstream.response import NotSent
from mirror.upstream.transport import Transport
from mirror.write.record import WriteRecord, choose_upstream, find_target, read_refs

LONGEST_PAUSE = 10.0  # the longest wait before a retry, in seconds: a caller is waiting

MOST_TRIES = 3  # attempts of a request: a caller waits

# Statuses by which a server refuses a request without having begun it.
NOT_BEGUN = (501, 505, 511)

# Statuses by which the server itself ends a request. After 408, 502 and 504 it may still be at work.
REFUSALS = (425, 500, 503)

T = TypeVar("T")

ABSENT = (404, 410)  # statuses for a repository that does not exist
# Texts whose null means that they are empty, not that they are unknown.
MAY_BE_EMPTY = ("description", "website", "language")

CLOCKS_APART = timedelta(minutes=10)  # how far the clock of an upstream may lag behind ours


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
    ) -> None:
        self._config = config
        self._environ = environ
        self._clock = clock
        self._sleep = sleep
        self._transport = transport

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
            record = WriteRecord(store, chosen, by, self._clock)
            full_name, since = f"{owner}/{slug}", self._clock()
            known_uuid = record.uuid_of(full_name)
            with self._connected(chosen, store) as there:
                if there.knows_names_only and slug.lower() not in (name.lower(), slug_of(name)):
                    why = f"name: {chosen.name} makes the address of it, so {name!r} cannot be at {full_name}"
                    raise UpstreamRefused(why, status=400)
                if settings.scm is None:
                    scm = (record.newest_scm(owner) or "hg") if there.knows_hg else "git"
                    settings = msgspec.structs.replace(settings, scm=scm)
                with record.auditing("create", full_name):
                    made = do_once(
                        f"creating {full_name}",
                        lambda: there.create_repository(owner, slug, settings),
                        lambda: find_created(there, full_name, settings, known_uuid=known_uuid, since=since),
                    )
                    record.save("create", made, displaced=_displaced(record, there, made))
                read_refs(record, there, made)
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
            record = WriteRecord(store, target.upstream, by, self._clock)
            with self._connected(target.upstream, store) as there:
                # With its present name: a PUT to an unused name would create a repository.
                before = there.fetch_repository(target.key)
                # Who may write to the former namespace may have no rights in the present one.
                if before.key.workspace.lower() != target.key.workspace.lower():
                    raise _called_otherwise(target.key, before.key, "update")
                with record.auditing("update", full_name):
                    made = do_once(
                        f"updating {target.key.full_name}",
                        lambda: _same(before, there.update_repository(before.key, settings)),
                        lambda: find_updated(there, before, settings),
                    )
                    displaced = _displaced(record, there, made)
                    renamed = target.row_id if made.uuid != target.key.uuid else None
                    record.save("update", made, displaced=displaced, renamed=renamed)
                if renamed is not None:
                    read_refs(record, there, made)
                return made

    def delete(
        self, full_name: str, *, by: str, upstream: str = "", uuid: str | None = None
    ) -> RepositoryKey:
        """Delete a repository upstream; its row becomes a tombstone, with its refs."""
        with self._store() as store:
            target = find_target(self._config, store, full_name, upstream, uuid=uuid)
            record = WriteRecord(store, target.upstream, by, self._clock)
            with self._connected(target.upstream, store) as there:
                key = there.fetch_repository(target.key).key
                if key.full_name.lower() != target.key.full_name.lower():
                    raise _called_otherwise(target.key, key, "delete")

                def ask() -> bool:
                    there.delete_repository(key)
                    return True

                with record.auditing("delete", full_name):
                    do_once(f"deleting {key.full_name}", ask, lambda: find_deleted(there, key))
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
            record = WriteRecord(store, target.upstream, by, self._clock)
            fork_name, since = f"{owner}/{_slug_of(name)}", self._clock()
            known_uuid = record.uuid_of(fork_name)
            with self._connected(target.upstream, store) as there:
                now = there.fetch_repository(target.key)
                _must_be_visible(record, now, full_name, private_in=private_in)
                if now.is_private and settings.is_private is None:
                    settings = msgspec.structs.replace(settings, is_private=True)
                with record.auditing("fork", fork_name):
                    made = do_once(
                        f"forking {target.key.full_name} as {fork_name}",
                        lambda: there.fork_repository(now.key, owner, settings),
                        lambda: find_fork(
                            there, fork_name, settings, now.key, known_uuid=known_uuid, since=since
                        ),
                    )
                    record.save("fork", made, displaced=_displaced(record, there, made))
                read_refs(record, there, made)
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


def do_once(what: str, do: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Do a write once. If its answer is lost, return what `find` finds.

    An answer is lost if there is none, if it is a 5xx, or if it is a success that cannot be read. The
    upstream may have done the write, so it is never sent again.

    :param what: names the write in errors, as "creating erik/new".
    :param do: sends the write.
    :param find: asks for the result of the write; returns None if it is not there yet.

    Raises what `do` raises, UpstreamBusy or UpstreamRefused if the write was not done, OutcomeUnknown if that
    is not known.
    """
    try:
        return do()
    except (NotSent, StoreError) as error:  # after a StoreError the request could not be counted
        raise UpstreamBusy(f"{error}; {what} was not requested") from None
    except (UpstreamBusy, UpstreamShapeError) as error:
        if isinstance(error, UpstreamBusy) and error.status == 429:
            raise
        if isinstance(error, UpstreamBusy) and error.status in NOT_BEGUN:
            raise UpstreamRefused(f"{what} was not done: {error}", status=error.status) from None
        return _looked_up(what, find, error)


def _looked_up(what: str, find: Callable[[], T | None], lost: UpstreamError) -> T:
    try:
        found = find()
    except NameTaken:  # certain: the write was not done
        raise
    except MirrorError as error:
        raise OutcomeUnknown(
            f"{what} was requested and may have been done: {_sentence(lost)} A look-up did not settle that:"
            f" {_sentence(error)} Check before you repeat it; the next sync shows what became of it"
        ) from None
    if found is None:
        raise _not_done(what, lost)
    return found


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."  # the text of a network error may end with one


def _not_done(what: str, lost: UpstreamError) -> UpstreamError:
    if isinstance(lost, UpstreamBusy) and lost.status in REFUSALS:
        return UpstreamBusy(
            f"{what} was not done: {lost}; looking it up confirmed that",
            status=lost.status,
            retry_after=lost.retry_after,
        )
    return OutcomeUnknown(
        f"{what} was requested, and has not been done so far: {lost}. It was looked up once; the upstream"
        " may still be working on it, so check before you repeat it"
    )


def _slug_of(name: str) -> str:
    """Return the slug of a name; raises UpstreamRefused 400 if it would be empty."""
    slug = slug_of(name)
    if not slug:
        raise UpstreamRefused(f"name: {name!r} cannot be turned into an address", status=400)
    return slug


def _called_otherwise(known: RepositoryKey, now: RepositoryKey, what: str) -> UpstreamRefused:
    return UpstreamRefused(
        f"{known.full_name} is called {now.full_name} upstream now: nothing was {what}d; `mirror sync`, then"
        f" {what} it by that name",
        status=409,
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


class NameTaken(UpstreamRefused):
    """The name belongs to an older repository, so the write cannot have been done."""

    def __init__(self, full_name: str) -> None:
        super().__init__(f"there is a repository {full_name} already", status=400)


def find_created(
    upstream: Upstream,
    full_name: str,
    settings: RepositorySettings,
    *,
    known_uuid: str | None,
    since: datetime,
) -> Repository | None:
    """Find the repository that a write was to create with some settings, as `_find_new` does.

    Raises UpstreamError if it has other settings: somebody else may have made it at that moment.
    """
    found = _find_new(upstream, full_name, settings, known_uuid, since)
    if found is not None and not _agrees(found, settings, _unknown(upstream, found, settings)):
        raise UpstreamError(f"{found.full_name} is there now, but not as it was asked for")
    return found


def find_fork(
    upstream: Upstream,
    full_name: str,
    settings: RepositorySettings,
    parent: RepositoryKey,
    *,
    known_uuid: str | None,
    since: datetime,
) -> Repository | None:
    """Find the fork that a write was to create, as `_find_new` does; NameTaken also for another parent."""
    found = _find_new(upstream, full_name, settings, known_uuid, since)
    if found is not None and found.parent_uuid != parent.uuid:
        raise NameTaken(found.full_name)
    return found


def _find_new(
    upstream: Upstream,
    full_name: str,
    settings: RepositorySettings,
    known_uuid: str | None,
    since: datetime,
) -> Repository | None:
    """Return the repository that has a name by a write of ours, or None.

    :param known_uuid: the uuid that the mirror knew for the name before.
    :param since: the time of the write.

    Raises NameTaken if the repository has that uuid, or is older than the write; UpstreamError if its age is
    unknown, or it may have another slug.
    """
    try:
        found = upstream.find_repository(full_name)
    except UpstreamRefused as error:
        if error.status not in ABSENT:
            raise
        slug = full_name.partition("/")[2]
        if upstream.knows_names_only and (settings.name or slug).lower() != slug.lower():
            why = f"{upstream.name} may have given {settings.name!r} another address than {full_name}"
            raise UpstreamError(why) from None
        return None
    if found.uuid == known_uuid:
        raise NameTaken(found.full_name)
    if found.created_at is None:
        raise UpstreamError(f"there is {found.full_name}, and {upstream.name} does not say since when")
    if from_text(found.created_at) < since - CLOCKS_APART:
        raise NameTaken(found.full_name)
    return found


def find_updated(upstream: Upstream, before: Repository, settings: RepositorySettings) -> Repository | None:
    """Return the repository if it has the given settings, None if it has those of `before`.

    Raises UpstreamError if it has some of them, or if those that the upstream reports agree, and others are
    unknown.
    """
    found = upstream.fetch_repository(before.key)
    unknown = _unknown(upstream, found, settings)
    if not _agrees(found, settings, unknown):
        changed = [name for name in settings.given() if getattr(found, name) != getattr(before, name)]
        if changed:
            raise UpstreamError(f"it changed in {', '.join(changed)}, but not in all that was asked for")
        return None
    if unknown:
        raise UpstreamError(f"{upstream.name} does not report {', '.join(sorted(unknown))}")
    return found


def find_deleted(upstream: Upstream, key: RepositoryKey) -> bool | None:
    """Return True if the repository is gone, else None."""
    try:
        upstream.fetch_repository(key)
    except UpstreamRefused as error:
        if error.status in ABSENT:
            return True
        raise
    return None


def _unknown(upstream: Upstream, row: Repository, settings: RepositorySettings) -> set[str]:
    """Return the given settings of which the answer says nothing."""
    return {
        name
        for name in settings.given()
        if name in upstream.never_tells or (name not in MAY_BE_EMPTY and getattr(row, name) is None)
    }


def _agrees(row: Repository, settings: RepositorySettings, unknown: Container[str]) -> bool:
    """Return whether a repository has the given settings, except unknown ones."""
    return all(
        _plain(getattr(row, name)) == _plain(value)
        for name, value in settings.given().items()
        if name not in unknown
    )


def _plain(value: object) -> object:
    """Return a value without what upstreams may change: blanks and case of a text, null for an empty one."""
    return " ".join(value.split()).casefold() if isinstance(value, str) else "" if value is None else value
