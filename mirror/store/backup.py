"""Back up a mirror, even while it is written to, and replace a mirror by such a copy.

A restore accounts for what the copy cannot know. After the copy was made, requests were sent, tokens were
revoked and repositories were made private. So the budget of the hour counts as spent unless the replaced file
has the requests, tokens are revoked, and strangers see nothing until a full listing has shown what is still
public (`mirror.sync.missing`).
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.store import tokens
from mirror.store.cursors import Cursors
from mirror.store.database import Store
from mirror.store.faults import explained
from mirror.store.files import one_at_a_time, open_reader, read_if_possible, schema_version, snapshot_moment
from mirror.store.ledger import count_all_as_spent, take_over
from mirror.store.lock import (
    beside,
    is_served,
    place_of_copy,
    replacing,
    service_runs,
    sync_lock,
    sync_to_disk,
)
from mirror.store.paths import give_to_owner, reading_address
from mirror.store.repair import faults_of
from mirror.store.rows import fetch, fetch_row
from mirror.times import to_text

PAGES = 500  # pages that are copied before progress is reported and Ctrl-C is noticed: 2 MB

# Called with the number of copied pages and of all pages; an exception stops the copy.
OnProgress = Callable[[int, int], None]


def back_up(mirror: Path, target: Path, *, progress: OnProgress | None = None) -> Path:
    """Copy a mirror into the file `target`, which is replaced as a whole, and return that file.

    The copy is one state of the mirror, even if it is written to meanwhile. It needs no file beside it, and
    only its owner can read it. Raises ConfigError if a copy cannot go to the target, StoreLocked while
    another process copies to it, StoreError if either file cannot be used; the target is unchanged then.
    """
    target = place_of_copy(mirror, target)
    if read_if_possible(target, snapshot_moment) is not None:
        raise ConfigError(f"{target}: a published file, which has no private rows; give another name")
    with replacing(target, part=target.with_name(f"{target.name}.part")) as part:
        copy_checked(mirror, part, target=target, progress=progress)
    return target


def back_up_dated(
    mirror: Path, folder: Path, now: datetime, *, keep: int | None, progress: OnProgress | None = None
) -> Path:
    """Copy a mirror into a folder, under a name with the time, and return the new file.

    `keep` is the number of copies to keep, including this one; None keeps all. Raises what `back_up` raises.
    """
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = place_of_copy(mirror, folder / f"{mirror.stem}-{now:%Y%m%dT%H%M%SZ}.db")
    with replacing(target, part=folder / f"{mirror.stem}.part") as part:
        copy_checked(mirror, part, target=target, progress=progress)
        older = [one for one in dated_copies(mirror, folder) if one.name != target.name]
    for one in older[: max(0, len(older) + 1 - keep)] if keep is not None else ():
        with explained(one):
            one.unlink(missing_ok=True)
    return target


def dated_copies(mirror: Path, folder: Path) -> list[Path]:
    """List the dated copies of a mirror in a folder, oldest first."""
    name = re.compile(rf"{re.escape(mirror.stem)}-\d{{8}}T\d{{6}}Z\.db")
    with suppress(OSError):
        return sorted(one for one in folder.iterdir() if name.fullmatch(one.name))
    return []


def copy_checked(
    source: Path,
    part: Path,
    *,
    target: Path,
    advice: str = "see: mirror verify",
    progress: OnProgress | None,
) -> None:
    """Copy one state of a mirror into an empty file, and check the copy; errors name the `target`.

    Raises StoreError, also for a mirror with faults: its copy must not replace a good one. Then the error
    names the `source`, with this advice.
    """
    with closing(open_reader(source, older=True)) as reading:
        with explained(source):
            reading.execute("BEGIN")  # until it ends, all steps of the copy see one state
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        with explained(target), closing(sqlite3.connect(part, isolation_level=None)) as copy:
            for setting in ("journal_mode = OFF", "synchronous = OFF"):  # it is synced to the disk at the end
                copy.execute(f"PRAGMA {setting}")
            reading.backup(copy, pages=PAGES, progress=_reporting(progress))
            copy.execute("PRAGMA journal_mode = DELETE")
    with explained(target):
        faults = _faults_in(part)
    if faults:
        raise StoreError(f"{source}: has faults, and was not copied: {faults[0]}; {advice}")


def _faults_in(part: Path) -> list[str]:
    """Return the faults of a copy, also those that end the search for faults."""
    try:
        return faults_of(part)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):  # of the disk
            raise
        return [str(error)]


def _reporting(progress: OnProgress | None) -> Callable[[int, int, int], None]:
    """Return the callback for SQLite, which notices Ctrl-C only when it calls one."""

    def report(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    return report


PENDING_BYTE = 0x40000000  # where SQLite locks a file
LOCK_BYTES = 512  # the bytes of a file that SQLite locks: every process with the file open locks some of them


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a restore: the place of the replaced file, and what was marked.

    - `kept`: None if there was no file.
    - `repositories`: their number in the copy; `as_of`: when its last run began, None before the first.
    - `revoked`: the number of revoked tokens.
    - `budget_is_known`: whether the replaced file had the requests of the last hour.
    - `unconfirmed`: the upstreams that must be listed in full before strangers see anything.
    """

    kept: Path | None
    repositories: int
    as_of: str | None
    revoked: int
    budget_is_known: bool
    unconfirmed: tuple[str, ...]


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore trusts: that the copy's tokens are still valid, and its public rows are still public."""

    tokens: bool = False
    public: bool = False


def restore_copy(
    copy: Path,
    mirror: Path,
    now: datetime,
    *,
    mode: int,
    trust: Trust,
    limits: Mapping[str, int | None],
    progress: OnProgress | None = None,
) -> Restored:
    """Replace a mirror by a copy; the old file is kept under another name.

    `mode` is the mode of the new file if there was none. `limits` maps the accounts of the configuration to
    their requests per hour, None for no limit. Raises ConfigError if both are the same file, StoreLocked if a
    process syncs, serves or reads the mirror, StoreError for a file that is not a copy, has faults or is
    newer than this program. If killed at any moment, it leaves the old file or the new one.
    """
    _refuse_unfit(copy, mirror)
    mirror = Path(os.path.realpath(mirror))
    if service_runs(mirror) is not False or is_served(mirror) is not False:
        raise StoreLocked(f"{mirror}: a service runs on it; stop it first")
    with sync_lock(mirror, mode):
        part, kept = beside(mirror, ".restoring"), _kept_name(mirror, now)
        # The stack is closed last, when the copy is in its place.
        with ExitStack() as alone, replacing(mirror, part=part, mode=_mode_of(mirror, mode)):
            copy_checked(copy, part, target=mirror, advice=GIVE_ANOTHER, progress=progress)
            restored = _marked(part, mirror, now, trust, limits)
            give_to_owner(part, mirror)
            alone.enter_context(one_at_a_time(mirror.parent))
            alone.enter_context(_nobody_else(mirror))
            alone.callback(_drop_second_name, mirror, kept)
            _keep(mirror, kept)
    return msgspec.structs.replace(restored, kept=kept if kept.exists() else None)


GIVE_ANOTHER = "give a copy that `mirror backup` made"


def _refuse_unfit(copy: Path, mirror: Path) -> None:
    """Raise ConfigError for a file that cannot be a copy of the mirror, StoreError for no mirror at all."""
    if copy.is_dir():
        raise ConfigError(f"{copy}: a folder; give one of the copies in it")
    if not copy.exists():
        raise ConfigError(f"{copy}: no such file; {GIVE_ANOTHER}")
    if mirror.exists() and copy.samefile(mirror):
        raise ConfigError(f"{copy}: is the mirror itself; give a copy of it")
    with explained(copy):
        if fault := _fault_of(copy):
            raise StoreError(f"{copy}: {fault}; {GIVE_ANOTHER}")
    with closing(open_reader(copy, older=True)) as connection, explained(copy):
        if snapshot_moment(connection) is not None:
            raise ConfigError(
                f"{copy}: a published file, without private rows; give one that `mirror backup` made"
            )


def _fault_of(copy: Path) -> str | None:
    """Return why a file is no copy of any mirror; None if it may be one."""
    # `open_reader` would advise about the setting `database`, which is another file.
    if not copy.is_file():
        return "not a regular file"
    if not copy.stat().st_size:
        return "is empty"
    try:
        with closing(sqlite3.connect(reading_address(copy), uri=True)) as connection:
            return None if schema_version(connection) else "a database, but not a mirror"
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        return f"cannot be read ({error})"


def _mode_of(mirror: Path, mode: int) -> int:
    """Return the mode of the replaced file, or `mode` without one."""
    try:
        return mirror.stat().st_mode & 0o777
    except OSError:
        return mode


def _marked(
    part: Path, mirror: Path, now: datetime, trust: Trust, limits: Mapping[str, int | None]
) -> Restored:
    """Migrate the copy to this version, and write what it cannot know into it."""
    at = to_text(now)
    with Store(part) as store, store.transaction() as connection:
        is_known = _take_over(connection, mirror)
        if not is_known:
            count_all_as_spent(connection, limits, now)
        revoked = 0 if trust.tokens else tokens.revoke_all(connection, at=at)
        tokens.retire_numbers(connection, up_to=int(now.timestamp()), at=at)
        upstreams = dict(fetch(connection, "SELECT id, name FROM upstreams ORDER BY id"))
        for upstream_id in upstreams:
            cursors = Cursors(connection, upstream_id)
            if trust.public:
                cursors.restored.drop()  # the copy may be one of a restored file
            else:
                cursors.await_listing(at=at)
        restored = Restored(
            kept=None,
            repositories=store.value("SELECT count(*) FROM repositories WHERE deleted_at IS NULL"),
            as_of=store.value("SELECT max(started_at) FROM sync_runs"),
            revoked=revoked,
            budget_is_known=is_known,
            unconfirmed=() if trust.public else tuple(upstreams.values()),
        )
    with closing(sqlite3.connect(part)) as connection, explained(mirror):
        connection.execute("PRAGMA journal_mode = DELETE")
    return restored


def _take_over(connection: sqlite3.Connection, mirror: Path) -> bool:
    """Copy the requests of the last hours and the revoked tokens from the replaced file.

    Return whether that file continues from the end of the copy, so that it has all requests.
    """
    if not mirror.exists():
        return False
    last = fetch_row(connection, "SELECT id, started_at FROM sync_runs ORDER BY id DESC LIMIT 1")
    try:
        with closing(open_reader(mirror)) as old:
            goes_on = "SELECT 1 FROM sync_runs WHERE id = ? AND started_at = ?"
            if not fetch(old, goes_on, last or (0, "")):
                return False
            take_over(connection, old)
            tokens.revoke_like(connection, old)
    except (StoreError, sqlite3.Error, UnicodeDecodeError):  # damaged: a reason to restore a copy
        return False
    return True


def _kept_name(mirror: Path, now: datetime) -> Path:
    """Return an unused name for the replaced file."""
    name, number = f"{mirror.name}.before-{now:%Y%m%dT%H%M%SZ}", 1
    while mirror.with_name(name).exists():
        number += 1
        name = f"{mirror.name}.before-{now:%Y%m%dT%H%M%SZ}-{number}"
    return mirror.with_name(name)


@contextmanager
def _nobody_else(mirror: Path) -> Iterator[None]:
    """Keep all other programs from opening a file; raises StoreLocked if one has it open."""
    if not mirror.exists():
        yield
        return
    _without_journal(mirror)
    with explained(mirror):
        descriptor = os.open(mirror, os.O_RDWR | os.O_CLOEXEC)
    try:
        with explained(mirror):
            try:  # SQLite's own lock, since SQL cannot ask a damaged file
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_BYTES, PENDING_BYTE)
            except (BlockingIOError, PermissionError):
                raise StoreLocked(f"{mirror}: {_IN_USE}") from None
        yield
    finally:
        os.close(descriptor)


def _without_journal(mirror: Path) -> None:
    """Move the content of the journal into the file; this needs exclusive access."""
    try:
        with closing(sqlite3.connect(mirror, timeout=1.0)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StoreLocked(f"{mirror}: {_IN_USE}") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        pass  # it is damaged, and kept as it is


_IN_USE = "another program has it open: a server, a shell, a replicator; stop it first"


def _keep(mirror: Path, kept: Path) -> None:
    """Give the replaced file a second name, and the journal that a damaged one still has."""
    if not mirror.exists():
        return
    try:
        os.link(mirror, kept)
        journal = mirror.with_name(f"{mirror.name}-wal")
        if journal.exists() and journal.stat().st_size:
            os.link(journal, kept.with_name(f"{kept.name}-wal"))
    except OSError as error:
        raise StoreError(
            f"{mirror}: cannot be given a second name ({error.strerror}); move it away, and restore again"
        ) from error
    with explained(mirror):
        sync_to_disk(mirror.parent)


def _drop_second_name(mirror: Path, kept: Path) -> None:
    """Remove the second name of a file that was not replaced after all."""
    # SQLite would not notice a program that has the file open by its other name. That of a damaged file
    # stays where it has the journal.
    with suppress(OSError):
        if kept.samefile(mirror) and not kept.with_name(f"{kept.name}-wal").exists():
            kept.unlink()
