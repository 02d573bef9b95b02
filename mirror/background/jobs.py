"""Doing one piece of scheduled work, as the command of that name would, but never waiting."""

import threading
from collections.abc import Collection
from pathlib import Path

from mirror.background.works import Work
from mirror.checks import check_file
from mirror.config import Config
from mirror.observe.health import INTEGRITY
from mirror.report import Reporter, Summary
from mirror.session import Wishes, sync_all, verify_all
from mirror.store import Store
from mirror.store.runs import save_cursor
from mirror.sync.part import EVERYTHING, MARKED, REFS, RETRY, Part
from mirror.times import Clock, to_text


def do(
    work: Work,
    config: Config,
    *,
    report: Reporter,
    stop: threading.Event,
    clock: Clock,
    due: Collection[str] = (),
) -> list[Summary]:
    """Do it and return the accounts of its runs; raises what `sync_all` and `verify_all` raise.

    `due` are the workspaces that watching lists.
    """
    part = part_of(work, due)
    wishes = Wishes(names=(work.upstream.name,), may_wait=False, full=work.kind == "sweep", part=part)
    if work.kind == "verify":
        return _verify(work, config, wishes, report=report, stop=stop, clock=clock)
    return sync_all(config, wishes, report=report, stop=stop, clock=clock)


def part_of(work: Work, due: Collection[str] = ()) -> Part:
    """Say which part of a sync a kind of work does; refs with a schedule of their own are left to it."""
    own = bool(work.upstream.refs_schedule.strip())
    if work.kind == "refs":
        return REFS
    if work.kind == "marked":
        return MARKED
    if work.kind == "watch":
        return Part(due=due, leftovers=False, refs=not own, kind="watch")
    part = RETRY if work.kind == "retry" else EVERYTHING
    return Part(listings=part.listings, refs=not own, kind=part.kind)


def _verify(
    work: Work, config: Config, wishes: Wishes, *, report: Reporter, stop: threading.Event, clock: Clock
) -> list[Summary]:
    """Compare a sample of rows, and look the file over; what is wrong is told and left to `mirror verify`."""
    complaints = check_file(Path(config.database), repair=False)
    for complaint in complaints:
        report.note(f"{work.id}: {complaint.text}")
    _keep(work, config, f"{len(complaints):,} faults; see: mirror verify" if complaints else "", clock)
    summaries, findings = verify_all(
        config,
        wishes,
        sample=work.upstream.verify_sample,
        repair=False,
        report=report,
        stop=stop,
        clock=clock,
    )
    wrong = sum(finding.is_fault for finding in findings)
    if wrong:
        report.note(f"{work.id}: {wrong:,} differences; see: mirror verify --sample all --repair")
    return summaries


def _keep(work: Work, config: Config, found: str, clock: Clock) -> None:
    """Keep what the look over the file found, for `/-/health`."""
    with Store(Path(config.database)) as store, store.transaction() as connection:
        row = store.row("SELECT id FROM upstreams WHERE name = ?", (work.upstream.name,))
        if row is not None:
            save_cursor(connection, row[0], INTEGRITY, found, at=to_text(clock()))
