"""Scheduled work on the file itself, which sends no requests: backup, publish, site, export, compaction.

When a chore was last done is read from the file that it made: a restored mirror has no record of its copies.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mirror.background.triggers import next_time
from mirror.config import Config
from mirror.errors import Interrupted, MirrorError
from mirror.lake import address_of
from mirror.publish import PublishOptions, publish
from mirror.readable import size_text
from mirror.store import Store
from mirror.store.backup import back_up_dated, dated_copies
from mirror.store.export_marks import last_export
from mirror.store.files import open_reader
from mirror.store.history import compact, compacted_before
from mirror.times import Clock, from_text, to_text

Stop = threading.Event


class Chore(NamedTuple):
    """One kind of such work.

    - `last_done`: returns when it was last done, None for never.
    - `do`: does it and returns a line on the result; raises MirrorError, and Interrupted if it has to stop.
    """

    id: str
    schedule: str
    last_done: Callable[[], datetime | None]
    do: Callable[[Stop, Clock], str]


def chores_of(config: Config) -> Iterator[Chore]:
    """Yield the chores that a configuration schedules."""
    mirror, folder = Path(config.database), Path(config.backup_folder)
    history = config.history
    for chore in (
        Chore(
            "backup",
            config.backup_schedule,
            lambda: _newest(dated_copies(mirror, folder)),
            lambda stop, clock: _back_up(config, stop, clock),
        ),
        Chore(
            "publish",
            config.publish_schedule,
            lambda: _written(Path(config.serve.public_snapshot)),
            lambda stop, _: _publish(config, stop),
        ),
        Chore(
            "site",
            config.site_schedule,
            lambda: _last_site(Path(config.site_folder)),
            lambda stop, _: _make_site(config, stop),
        ),
        Chore(
            "export",
            config.export_schedule,
            lambda: _last_export(mirror, config.export_to),
            lambda stop, clock: _export(config, stop, clock),
        ),
        Chore(
            "history",
            history.schedule if history.keep else "",
            lambda: _last_compaction(mirror, history.keep),
            lambda stop, clock: _compact(config, stop, clock),
        ),
    ):
        if chore.schedule.strip():
            yield chore._replace(schedule=chore.schedule.strip())


def is_overdue(chore: Chore, *, zone: str, now: datetime) -> bool:
    """Return whether a chore became due while no service ran; False if it was never done."""
    last = chore.last_done()
    due = next_time(chore.schedule, zone=zone, after=last) if last is not None else None
    return due is not None and due <= now


def _back_up(config: Config, stop: Stop, clock: Clock) -> str:
    copy = back_up_dated(
        Path(config.database),
        Path(config.backup_folder),
        clock(),
        keep=config.backup_keep,
        progress=_until(stop),
    )
    return f"{copy}: a checked copy, {size_text(copy.stat().st_size)}"


def _publish(config: Config, stop: Stop) -> str:
    look = _until(stop)
    done = publish(
        Path(config.database),
        Path(config.serve.public_snapshot),
        PublishOptions(force=True),
        progress=lambda _, step, of: look(step, of),
    )
    return f"{done.file}: the public part as of {done.published_at}, {size_text(done.bytes)}"


def _last_site(folder: Path) -> datetime | None:
    """Return when the site was last made."""
    from mirror.site.folder import MANIFEST  # noqa: PLC0415

    return _written(folder / MANIFEST)


def _make_site(config: Config, stop: Stop) -> str:
    # Only making a site needs its templates.
    from mirror.site import SiteOptions, make_site  # noqa: PLC0415

    look = _until(stop)
    done = make_site(
        Path(config.database),
        Path(config.site_folder),
        SiteOptions(title=config.site_title, base_url=config.site_url),
        progress=lambda _, step, of: look(step, of),
    )
    return (
        f"{done.folder}: a site of {done.files:,} files, {done.written:,} written, {done.removed:,} removed"
    )


def _export(config: Config, stop: Stop, clock: Clock) -> str:
    # Only an export needs pyarrow.
    from mirror.lake.export import ExportOptions, export  # noqa: PLC0415
    from mirror.lake.place import Place  # noqa: PLC0415

    done = export(
        Path(config.database),
        Place(config.export_to),
        ExportOptions(public=config.export_public),
        clock=clock,
        progress=_until(stop),
    )
    return done.text


def _compact(config: Config, stop: Stop, clock: Clock) -> str:
    before = to_text(clock() - timedelta(seconds=config.history.keep))
    with Store(Path(config.database)) as store:
        dropped = compact(store, before, on_batch=lambda: _until(stop)(None, None))
    return f"history before {before[:10]} is true to the day: {dropped:,} changes dropped"


def _last_compaction(mirror: Path, keep: float) -> datetime | None:
    """Return about when history was last compacted: its limit then, plus how long history is kept."""
    try:
        with closing(open_reader(mirror)) as connection:
            found = compacted_before(connection)
    except (MirrorError, sqlite3.Error):
        return None
    return from_text(found) + timedelta(seconds=keep) if found else None


def _last_export(mirror: Path, given: str) -> datetime | None:
    """Return when files were last added to a lake. An unreadable lake is reported when it is written."""
    try:
        with closing(open_reader(mirror)) as connection:
            found = last_export(connection, address_of(given).text)
    except (MirrorError, sqlite3.Error):
        return None
    return from_text(found) if found else None


def _until(stop: Stop) -> Callable[[object, object], None]:
    """Return the check that stops a long copy when the service stops."""

    def check(_: object, __: object) -> None:
        if stop.is_set():
            raise Interrupted("stopped; the previous file stays")

    return check


def _newest(paths: list[Path]) -> datetime | None:
    """Return when the newest of some files was written; None without any."""
    return max(filter(None, map(_written, paths)), default=None)


def _written(path: Path) -> datetime | None:
    """Return when a file was written; None if there is none."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None
