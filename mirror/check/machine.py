"""The result of a check, and the checks of this machine: schedules, modes, disk, mirror, service."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec

from mirror.background.jobs import scheduled_work
from mirror.background.service import checked
from mirror.background.triggers import next_time
from mirror.config import Config
from mirror.config_checks import open_files
from mirror.errors import ConfigError, NotFound, StoreError
from mirror.readable import repositories_text, size_text
from mirror.store.files import damage_explained, open_reader
from mirror.store.lock import service_runs
from mirror.store.repair import check_file
from mirror.times import day_text, utc_now

CONFIGURATION, CREDENTIALS, UNUSABLE = 2, 3, 4
"""Exit codes, the most basic fault first."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `remedy` is what to do, None if there is nothing to do.

    A check that is ok may have a remedy too: advice. `code` is the exit code of a failed check.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    code: int = 0

    def public(self) -> dict[str, object]:
        """Return the check as `--json` prints it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "remedy": self.remedy}


def exit_code(checks: list[Check]) -> int:
    """Return the exit code of the most basic fault; 0 without faults."""
    return min((check.code for check in checks if not check.ok), default=0)


def faulty_configuration(error: ConfigError) -> Check:
    """Return the check of a configuration that cannot be read: without one, nothing else can be checked."""
    detail, _, remedy = str(error).partition("; ")
    return bad("configuration", CONFIGURATION, detail, remedy or "mend the file; docs/configuration.md")


def good(name: str, detail: str, advice: str | None = None) -> Check:
    """Return the result of a check that found no fault."""
    return Check(name=name, ok=True, detail=detail, remedy=advice)


def bad(name: str, code: int, detail: str, remedy: str) -> Check:
    """Return the result of a check that found a fault."""
    return Check(name=name, ok=False, detail=detail, remedy=remedy, code=code)


LEAST_FREE = 256 * 1024 * 1024
"""Bytes that must be free on the disk."""

_COUNT = "SELECT count(*) FROM repositories WHERE deleted_at IS NULL"


def check_schedules(config: Config) -> Check:
    """Check that each schedule can be read, and say what is due next."""
    try:
        checked(config)
    except ConfigError as error:
        return bad("schedules", CONFIGURATION, str(error), 'five cron fields, an interval like "15m", or ""')
    now, due = utc_now(), list[tuple[datetime, str]]()
    for work in scheduled_work(config):
        moment = next_time(work.schedule, zone=config.timezone, after=now)
        due += [(moment, work.id)] if moment else []
    if not due:
        return good("schedules", "none is set", "run `mirror sync` yourself, by cron")
    told = ", ".join(f"{name} {day_text(moment)}" for moment, name in sorted(due))
    return good("schedules", f"next {told}")


def check_machine(config: Config) -> Iterator[Check]:
    """Run all other checks of this machine."""
    yield from _check_modes(config)
    yield _check_disk(config)
    yield from _check_database(config)
    yield _check_service(config)


def _check_modes(config: Config) -> Iterator[Check]:
    """Check that neither the file nor a secret is open to other users of the machine."""
    lines = list(open_files(config))
    for line in lines:
        detail, _, remedy = line.partition("): ")
        yield bad("file modes", CONFIGURATION, f"{detail})", remedy)
    if not lines:
        yield good("file modes", "other users can read neither the file nor a secret")


def _check_disk(config: Config) -> Check:
    """Check that the folder of the file can be written, and has room."""
    folder = Path(os.path.realpath(config.database)).parent
    while not folder.exists():  # the first sync creates it
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return bad("disk", UNUSABLE, f"{folder} cannot be written", "run it as the owner, or set `database`")
    free = shutil.disk_usage(folder).free
    detail = f"{size_text(free)} are free in {folder}"
    if free < LEAST_FREE:
        return bad("disk", UNUSABLE, detail, f"free at least {size_text(LEAST_FREE)}")
    return good("disk", detail)


def _check_database(config: Config) -> Iterator[Check]:
    """Check the file and its search index."""
    path = Path(config.database)
    if not path.exists():
        detail = f"{path}: no mirror there yet"
        yield good("database", detail, "`mirror sync` makes one")
        return
    try:
        with closing(open_reader(path)) as connection, damage_explained(path):
            count = connection.execute(_COUNT).fetchone()[0]
        complaints = check_file(path, repair=False)
    except (StoreError, NotFound) as error:
        detail, _, remedy = str(error).partition("; ")
        yield bad("database", UNUSABLE, detail, remedy or "`mirror verify` says more")
        return
    index = [each.text for each in complaints if each.text.startswith("search index: ")]
    faults = [each.text for each in complaints if each.text not in index]
    if faults:
        remedy = "restore a copy, or move the file away and run `mirror sync`"
        yield bad("database", UNUSABLE, f"{path}: {faults[0]}", remedy)
        return
    yield good("database", f"{path}: {repositories_text(count)}; SQLite finds no fault")
    if index:
        yield bad("index", UNUSABLE, index[0].removeprefix("search index: "), "`mirror verify --repair`")
    else:
        yield good("index", "it matches the rows")


def _check_service(config: Config) -> Check:
    """Say whether a service keeps the mirror current; cron may do its work, so that none may be needed."""
    runs = service_runs(Path(config.database))
    if runs:
        return good("service", "a service syncs by schedule")
    detail = "none runs" if runs is False else "whether one runs cannot be found out here"
    remedy = "`mirror run` or `mirror schedule` keeps it current, or cron with `mirror sync --no-wait`"
    return good("service", detail, remedy)
