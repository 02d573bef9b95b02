"""How long history is kept: compacted to the first and last change of a day, without losing either."""

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cli_runner import Folder
from fixtures_db import FixtureDb, hg_ref, repository

from mirror.background.worker import chores_of, is_overdue
from mirror.config import read_config
from mirror.errors import Interrupted
from mirror.observe.metrics import FileMetrics
from mirror.queries.past import past_of
from mirror.queries.visibility import OPERATOR
from mirror.store import Store
from mirror.store.compaction import compact, compacted_before
from mirror.store.files import open_reader
from mirror.times import from_text, to_text

START = datetime(2016, 3, 1, tzinfo=UTC)
HOURS = 60
ENDS = (23, 47)
"""The last hours of the days."""
BEFORE = "2016-03-03T11:00:00.000000Z"
FIRST_EXACT = "2016-03-03T00:00:00.000000Z"


def moment(hours: int) -> str:
    """So many hours after the first look."""
    return to_text(START + timedelta(hours=hours))


@pytest.fixture
def filled(tmp_path: Path) -> FixtureDb:
    """A repository with hourly moves of a branch and edits of its description, for two and a half days."""
    filled = FixtureDb(tmp_path / "mirror.db")
    for hour in range(HOURS):
        said = repository("ann/tool", description=str(hour), website=str(hour // 30), size=hour)
        filled.repositories([said], at=moment(hour), first=hour == 0)
        filled.refs("ann/tool", [hg_ref("branch", "main", f"{hour:02}")], at=moment(hour))
    return filled


def states(filled: FixtureDb, hours: Iterable[int] = range(HOURS)) -> dict[int, tuple[object, ...]]:
    """The description, the size and the branch at each of some hours."""
    found = dict[int, tuple[object, ...]]()
    for hour in hours:
        past = past_of(filled.store.connection, OPERATOR, 1, moment(hour))
        found[hour] = (
            past.columns["description"],
            past.columns["size"],
            past.refs[0].row.target_hash,
        )
        assert past.to_the_day is (moment(hour) < (compacted_before(filled.store.connection) or ""))
    return found


def count(filled: FixtureDb) -> int:
    """How many changes are recorded, and former sizes."""
    return int(filled.store.value("SELECT (SELECT count(*) FROM changes) + (SELECT count(*) FROM measures)"))


def test_the_first_and_last_of_each_day_stay(filled: FixtureDb) -> None:
    """Younger days stay whole; at the end of each day, the past is unchanged, and exact to the day."""
    before, were = states(filled), count(filled)
    dropped = compact(filled.store, BEFORE)
    after = states(filled)
    assert dropped == were - count(filled) > 80
    assert compacted_before(filled.store.connection) == FIRST_EXACT
    former_sizes = filled.store.rows("SELECT substr(until, 1, 10), count(*) FROM measures GROUP BY 1")
    assert former_sizes == [("2016-03-01", 1), ("2016-03-02", 1), ("2016-03-03", 12)]
    for hour in range(HOURS):
        if hour % 24 == 23 or moment(hour) >= FIRST_EXACT:
            assert after[hour] == before[hour]
    assert compact(filled.store, BEFORE) == 0
    assert states(filled) == after


def test_the_counter_of_changes_does_not_fall(filled: FixtureDb) -> None:
    """Prometheus would take all that are left for new ones. No row may be left of a kind."""
    with filled.store.transaction() as connection:
        connection.execute(
            """UPDATE changes SET kind = 'branch_created' WHERE id =
                (SELECT id FROM changes WHERE kind = 'branch_moved' ORDER BY id LIMIT 1 OFFSET 4)"""
        )

    def counted() -> list[str]:
        text = FileMetrics().text(filled.store.connection).decode()
        return [line for line in text.splitlines() if line.startswith("bitbucket_mirror_changes_total")]

    before = counted()
    assert compact(filled.store, BEFORE, batch=7) > 0
    assert counted() == before != []


def test_whatever_ends_it_the_next_time_goes_on(filled: FixtureDb) -> None:
    """Stopped before each transaction in turn; the past is exact to the day at any time between."""
    before = states(filled)
    steps = 0
    while True:
        left = [steps % 3]

        def told(left: list[int] = left) -> None:
            if not left[0]:
                raise Interrupted("stopped")
            left[0] -= 1

        steps += 1
        try:
            compact(filled.store, BEFORE, on_batch=told, batch=7)
            break
        except Interrupted:
            assert states(filled, ENDS) == {hour: before[hour] for hour in ENDS}
    assert steps > 3
    assert all(
        first < second for first, second in pairwise(filled.store.rows("SELECT id FROM changes ORDER BY id"))
    )


def test_a_killed_compaction_goes_on_beside_readers_and_a_writer(filled: FixtureDb) -> None:
    """After repeated SIGKILLs, the result is that of one compaction, with all new changes."""
    before = states(filled, ENDS)
    filled.store.connection.execute("VACUUM INTO ?", (str(filled.path.with_name("whole.db")),))
    whole = FixtureDb(filled.path.with_name("whole.db"))
    compact(whole.store, BEFORE)
    for number, steps in enumerate((0, 3, 3, 8)):
        child = os.fork()
        if child == 0:
            with suppress(IndexError):
                compact(Store(filled.path), BEFORE, on_batch=([None] * steps).pop, batch=7)
            os.kill(os.getpid(), signal.SIGKILL)
        later = moment(HOURS + number)
        filled.repositories([repository("ann/tool", description=later)], at=later)
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            with closing(open_reader(filled.path)) as reader:
                past = past_of(reader, OPERATOR, 1, moment(ENDS[0]))
            assert past.refs[0].row.target_hash == before[ENDS[0]][2]
        assert states(filled, ENDS) == before
    compact(filled.store, BEFORE)
    about = "SELECT id, at, kind, ref, old, new FROM changes WHERE at < ? ORDER BY id"
    assert filled.store.rows(about, (moment(HOURS),)) == whole.store.rows(about, (moment(HOURS),))
    assert states(filled, ENDS) == before
    assert filled.store.rows("PRAGMA integrity_check") == [("ok",)]


def test_what_should_not_have_moved_is_kept(filled: FixtureDb) -> None:
    """Each forced push of a main branch, each tag that moved, and each deletion."""
    connection = filled.store.connection
    kept = {"forced": 10, "tag_moved": 12, "tag_deleted": 14, "branch_deleted": 16}
    for kind, hour in kept.items():
        row = "SELECT id FROM changes WHERE kind = 'branch_moved' AND at = ?"
        if kind == "forced":
            connection.execute(
                f"UPDATE changes SET forced = 1, is_main = 1 WHERE id = ({row})", (moment(hour),)
            )
        else:
            connection.execute(f"UPDATE changes SET kind = ? WHERE id = ({row})", (kind, moment(hour)))
    compact(filled.store, BEFORE)
    for hour in kept.values():
        assert filled.store.rows("SELECT 1 FROM changes WHERE ref = 'main' AND at = ?", (moment(hour),))


def test_the_service_compacts_by_its_schedule(filled: FixtureDb) -> None:
    """If `keep` is set; `mirror status` shows the size, and before when the past is exact to the day."""
    folder = filled.path.parent
    filled.store.close()
    (folder / "mirror.toml").write_text(
        'database = "mirror.db"\ntimezone = "UTC"\n[history]\nkeep = "10y"\n'
        '[[upstream]]\nname = "cloud"\nkind = "sandbox"\nurl = "http://127.0.0.1:9/2.0"\n'
    )
    config = read_config(folder / "mirror.toml")
    (chore,) = chores_of(config)
    now = from_text(BEFORE) + timedelta(days=3650)
    said = chore.do(threading.Event(), lambda: now)
    assert said.startswith("history before 2016-03-03 is true to the day: ")
    assert not is_overdue(chore, zone="UTC", now=now.replace(hour=1))
    assert is_overdue(chore, zone="UTC", now=now + timedelta(days=2))
    shown = Folder(folder).run("status").out
    assert "history: 33 changes since 2016-03-01, " in shown.replace("\n", " ")
    assert ", 0 bytes" not in shown
    assert "before 2016-03-03 to the day" in shown
    past = Folder(folder).run("show", "ann/tool", "--at", "2016-03-02T10:00Z").out
    assert "true to the day" in past


def test_all_history_is_kept_by_default(tmp_path: Path) -> None:
    """No chore deletes anything."""
    (tmp_path / "mirror.toml").write_text('[[upstream]]\nname = "a"\nkind = "sandbox"\nurl = "http://x"\n')
    assert not list(chores_of(read_config(tmp_path / "mirror.toml")))
