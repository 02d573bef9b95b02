"""How the work that schedules ask for is done: as a sync or a comparison, of a part or of everything."""

import threading
from collections.abc import Collection
from pathlib import Path

from mirror.background.jobs import Work
from mirror.config import Config
from mirror.operations import SyncOptions, sync_all, verify_all
from mirror.report import Reporter, Summary
from mirror.store import Store
from mirror.store.cursors import Cursors
from mirror.store.integrity import check_file
from mirror.sync.scope import EVERYTHING, HINTS, REFS, RETRY, Scope
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
    """Do the work and return the summaries of its runs; raises what `sync_all` and `verify_all` raise.

    `due` are the workspaces that a watch run lists.
    """
    scope = scope_of(work, due)
    options = SyncOptions(names=(work.upstream.name,), may_wait=False, full=work.kind == "sweep", scope=scope)
    if work.kind == "verify":
        return _verify(work, config, options, report=report, stop=stop, clock=clock)
    return sync_all(config, options, report=report, stop=stop, clock=clock)


def scope_of(work: Work, due: Collection[str] = ()) -> Scope:
    """Return the part of a sync that a kind of work does; refs with a schedule of their own are left out."""
    own = bool(work.upstream.refs_schedule.strip())
    if work.kind == "refs":
        return REFS
    if work.kind == "marked":
        return HINTS
    if work.kind == "watch":
        return Scope(due=due, leftovers=False, refs=not own, kind="watch")
    scope = RETRY if work.kind == "retry" else EVERYTHING
    return Scope(listings=scope.listings, refs=not own, kind=scope.kind)


def _verify(
    work: Work, config: Config, options: SyncOptions, *, report: Reporter, stop: threading.Event, clock: Clock
) -> list[Summary]:
    """Check the file and compare a sample of rows; faults are reported, and left to `mirror verify`."""
    complaints = check_file(Path(config.database), repair=False)
    for complaint in complaints:
        report.note(f"{work.id}: {complaint.text}")
    found = f"{len(complaints):,} faults; see: mirror verify" if complaints else ""
    _save_integrity(work, config, found, clock)
    summaries, findings = verify_all(
        config,
        options,
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


def _save_integrity(work: Work, config: Config, found: str, clock: Clock) -> None:
    """Save the result of the check, for `/-/health`; "" means that the file is sound."""
    with Store(Path(config.database)) as store, store.transaction() as connection:
        row = store.row("SELECT id FROM upstreams WHERE name = ?", (work.upstream.name,))
        if row is not None:
            Cursors(connection, row[0]).integrity.save(found, at=to_text(clock()))
