"""Scheduled copies: due by the files in the folder, made during syncs, reported when they fail."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from fixtures_db import fill_public
from sync_harness import Notes
from whole_files import all_rows

from mirror.background.service import Background, checked
from mirror.background.worker import chores_of, is_overdue
from mirror.config import Config, from_toml, read_config
from mirror.errors import ConfigError, Interrupted
from mirror.store.backup import dated_copies
from mirror.store.lock import replacing
from mirror.times import Clock, utc_now

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A mirror that is copied every night and keeps two copies."""
    fill_public(tmp_path / "mirror.db").store.close()
    (tmp_path / "mirror.toml").write_text(
        'database = "mirror.db"\nbackup_schedule = "30 2 * * *"\nbackup_keep = 2\ntimezone = "UTC"\n'
        '[[upstream]]\nname = "away"\nkind = "sandbox"\nurl = "http://127.0.0.1:9/2.0"\nschedule = ""\n'
        'verify_schedule = ""\nwatch = 0\n'
    )
    return read_config(tmp_path / "mirror.toml")


class Listener(Notes):
    """Knows when a copy was made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = threading.Event()

    def note(self, text: str) -> None:
        """Remember what is told."""
        super().note(text)
        if text.startswith("backup: "):
            self.made.set()


def at(moment: datetime) -> Clock:
    return lambda: moment


def copies(config: Config) -> list[Path]:
    return dated_copies(Path(config.database), Path(config.backup_folder))


def test_backups_are_made_and_the_oldest_deleted(config: Config) -> None:
    """The configured folder is created if it is missing."""
    (chore,) = chores_of(config)
    for hour in range(3):
        said = chore.do(threading.Event(), at(NOW + timedelta(hours=hour)))
    first, second = copies(config)
    assert first.name == "mirror-20261129T130000Z.db"
    assert said.startswith(f"{second}: a checked copy")
    assert second.parent == Path(config.database).with_name("backups")
    assert all_rows(second) == all_rows(Path(config.database))


def test_a_missed_backup_is_due(config: Config) -> None:
    """By the time of the newest copy; without one, at the next scheduled time."""
    (chore,) = chores_of(config)
    assert chore.last_done(NOW) is None
    assert not is_overdue(chore, zone="UTC", now=NOW)
    chore.do(threading.Event(), at(NOW))
    for last, due in ((NOW.replace(hour=3), False), (NOW - timedelta(days=1), True)):
        os.utime(copies(config)[0], (last.timestamp(), last.timestamp()))
        assert chore.last_done(NOW) == last
        assert is_overdue(chore, zone="UTC", now=NOW) is due


def test_a_chore_dated_in_the_future_delays_no_next_one(config: Config) -> None:
    """A copy that was made while the clock was years ahead is as if it were not there."""
    (chore,) = chores_of(config)
    for made in (NOW - timedelta(days=1), NOW + timedelta(days=3650)):
        copy = chore.do(threading.Event(), at(made)).partition(": ")[0]
        os.utime(copy, (made.timestamp(), made.timestamp()))
    assert chore.last_done(NOW) == NOW - timedelta(days=1)
    assert is_overdue(chore, zone="UTC", now=NOW)


def test_a_place_that_cannot_be_reached_fails_only_its_own_chore(config: Config) -> None:
    """A name that no system takes, as a disk that is gone: the other work is scheduled all the same."""
    site = msgspec.structs.replace(config, site_schedule="1h", site_folder="/" + 300 * "x")
    notes = Notes()
    background = Background(site, report=notes)
    background.start()
    try:
        assert "backup" in notes.notes[0]
        background._worker.keep(list(chores_of(site))[1])
        assert "File name too long" in notes.notes[-1]
    finally:
        background.end()


def test_stopping_the_service_stops_a_backup(config: Config) -> None:
    """Only the previous copy remains."""
    (chore,) = chores_of(config)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        chore.do(stop, utc_now)
    assert list(Path(config.backup_folder).iterdir()) == []


def test_the_service_makes_a_missed_backup(config: Config) -> None:
    """It says so in a line."""
    (chore,) = chores_of(config)
    chore.do(threading.Event(), at(NOW))
    os.utime(copies(config)[0], (0, 0))
    notes = Listener()
    background = Background(config, report=notes)
    background.start()
    assert notes.made.wait(20)
    background.end()
    assert len(copies(config)) == 2
    assert any(text.startswith("next: ") and "backup" in text for text in notes.notes)


def test_a_failed_backup_is_reported_and_the_service_goes_on(config: Config) -> None:
    """If the folder cannot be created, one alert is sent."""
    Path(config.backup_folder).write_text("no folder")
    (chore,) = chores_of(config)
    notes = Notes()
    background = Background(config, report=notes)
    background._worker.keep(chore)
    background._worker.keep(chore)
    assert [text.startswith("backup: ") for text in notes.notes] == [True, True]
    assert background._worker.alerts._troubled == {"backup"}
    Path(config.backup_folder).unlink()
    background._worker.keep(chore)
    assert background._worker.alerts._troubled == set()


def test_a_backup_that_another_service_is_making_is_skipped(config: Config) -> None:
    """As a sync is that another process does: a line, and no alert."""
    (chore,) = chores_of(config)
    folder, notes = Path(config.backup_folder), Notes()
    folder.mkdir()
    background = Background(config, report=notes)
    with replacing(folder / "other.db", part=folder / "mirror.part"):
        background._worker.keep(chore)
    assert [text.startswith("backup: skipped, ") for text in notes.notes] == [True]
    assert background._worker.alerts._troubled == set()


def test_the_publish_job_writes_the_public_file(config: Config, tmp_path: Path) -> None:
    """It replaces the file that the server shows to all callers."""
    serve = msgspec.structs.replace(config.serve, public_snapshot=str(tmp_path / "public.db"))
    config = msgspec.structs.replace(config, publish_schedule="1h", backup_schedule="", serve=serve)
    (chore,) = chores_of(config)
    assert (chore.id, chore.last_done(NOW)) == ("publish", None)
    for _ in range(2):
        assert "the public part as of " in chore.do(threading.Event(), at(NOW))
    assert chore.last_done(utc_now()) is not None
    assert len(all_rows(tmp_path / "public.db")["repositories"]) == 5
    with pytest.raises(ConfigError, match="needs a file to publish into"):
        from_toml('publish_schedule = "1h"')


def test_the_site_is_made(config: Config, tmp_path: Path) -> None:
    """From public rows; due by the time of the last site; a relative folder is beside the configuration."""
    config = msgspec.structs.replace(
        config, site_schedule="1h", site_folder=str(tmp_path / "www"), site_title="Ours", backup_schedule=""
    )
    (chore,) = chores_of(config)
    assert (chore.id, chore.last_done(NOW)) == ("site", None)
    assert ", 0 removed" in chore.do(threading.Event(), at(NOW))
    assert " 0 written" in chore.do(threading.Event(), at(NOW))
    assert chore.last_done(utc_now()) is not None
    assert "<title>Ours</title>" in (tmp_path / "www/index.html").read_text()
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        chore.do(stop, at(NOW))
    with pytest.raises(ConfigError, match="needs a folder"):
        from_toml('site_schedule = "1h"')
    (tmp_path / "site.toml").write_text('site_folder = "www"\n')
    assert read_config(tmp_path / "site.toml").site_folder == str(tmp_path / "www")


def test_a_schedule_that_never_fires_is_refused() -> None:
    """Like those of upstreams."""
    with pytest.raises(ConfigError, match="no day matches"):
        checked(from_toml('backup_schedule = "0 0 30 2 *"'))
    assert list(chores_of(msgspec.structs.replace(from_toml(""), backup_schedule=" "))) == []


def test_the_lake_is_exported_into(config: Config, tmp_path: Path) -> None:
    """Only changes, or a message that there are none; due by the last export."""
    config = msgspec.structs.replace(
        config, export_schedule="1h", export_to=str(tmp_path / "lake"), backup_schedule=""
    )
    (chore,) = chores_of(config)
    assert (chore.id, chore.last_done(NOW)) == ("export", None)
    assert "full, 5 repositories" in chore.do(threading.Event(), at(NOW))
    assert "nothing changed" in chore.do(threading.Event(), at(NOW + timedelta(hours=1)))
    assert chore.last_done(NOW) == NOW
    assert is_overdue(chore, zone="UTC", now=NOW + timedelta(hours=2))
    stop = threading.Event()
    stop.set()
    other = msgspec.structs.replace(config, export_to=str(tmp_path / "other"))
    with pytest.raises(Interrupted):
        next(chores_of(other)).do(stop, at(NOW))
    with pytest.raises(ConfigError, match="needs a lake"):
        from_toml('export_schedule = "1h"')
    with pytest.raises(ConfigError, match="cannot hold a lake"):
        checked(msgspec.structs.replace(config, export_to="ftp://host/lake"))
    text = 'export_to = "lake"\n[[upstream]]\nname = "a"\n'
    for said, placed in ((text, tmp_path / "lake"), (text.replace('"lake"', '"s3://b/p"'), "s3://b/p")):
        (tmp_path / "lake.toml").write_text(said)
        assert read_config(tmp_path / "lake.toml").export_to == str(placed)
