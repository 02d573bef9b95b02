"""The loops: from an upstream into the store, from wherever the last run stopped."""

from collections.abc import Iterable

import msgspec

from mirror.errors import CredentialsRefused
from mirror.report import Summary
from mirror.store.ledger import RequestLedger
from mirror.store.runs import Failure
from mirror.sync.absence import absence_steps, settle
from mirror.sync.holes import hole_steps
from mirror.sync.refs import count_stale, mark_old, refs_steps
from mirror.sync.run import Run
from mirror.sync.steps import work_off
from mirror.sync.workspaces import listing_steps
from mirror.times import from_text

__all__ = ["Run", "sync_upstream"]


def sync_upstream(run: Run) -> Summary:
    """Bring the mirror of one upstream up to date; the summary says how it went and what it cost.

    Raises StoreError when the file can no longer be written, and nothing else: whatever an upstream can do
    wrong is told by the summary.
    """
    threads, stop, report = run.config.concurrency, run.stop, run.report
    with run.recorded() as summary:
        RequestLedger(run.store).forget(run.now())
        check_caller(run)
        workspaces = find_workspaces(run)
        report.phase("listing workspaces", None)
        work_off(
            (step for name in workspaces for step in listing_steps(run, name)), threads=threads, stop=stop
        )
        work_off(hole_steps(run), threads=threads, stop=stop)
        work_off(absence_steps(run, workspaces), threads=threads, stop=stop)
        settle(run, workspaces)
        if run.with_refs:
            mark_old(run)
            report.phase("branches and tags", count_stale(run))
            work_off(refs_steps(run), threads=threads, stop=stop)
    return summary


class _Checked(msgspec.Struct):
    """When something that need not be asked in every run was asked last, and what for."""

    at: str
    bucket: str
    names: list[str] = []


def _recent(run: Run, stream: str) -> _Checked | None:
    """Read such a record, unless it is old or of another credential.

    Half the overlap is the limit: whatever a wrong belief hides for that long, the next listing after it
    still looks back on.
    """
    try:
        checked = msgspec.json.decode(run.cursor(stream) or "", type=_Checked)
    except msgspec.MsgspecError:
        return None
    age = (run.now() - from_text(checked.at)).total_seconds()
    fresh = 0 <= age < run.config.overlap / 2 and checked.bucket == run.budget.buckets["api"]
    return checked if fresh and not run.full else None


def _remember(run: Run, stream: str, names: list[str]) -> None:
    checked = _Checked(at=run.now_text(), bucket=run.budget.buckets["api"], names=names)
    run.save_cursor(stream, msgspec.json.encode(checked).decode())


def check_caller(run: Run) -> None:
    """Find out whether the credential is still somebody's, before anything is concluded from its view.

    Raises CredentialsRefused; Bitbucket answers public listings to a dead token as if to nobody.
    """
    if run.upstream.anonymous or _recent(run, "caller"):
        return
    run.upstream.fetch_caller()
    _remember(run, "caller", [])


def find_workspaces(run: Run) -> list[str]:
    """Name the workspaces to mirror: the configured ones, or all that the caller can see."""
    if run.config.workspaces is not None:
        return _once_each(run.config.workspaces)
    recent = _recent(run, "workspaces")
    if recent:
        return recent.names
    if run.upstream.anonymous and run.config.kind == "cloud":
        raise CredentialsRefused("without a credential, name the workspaces: workspaces = [...]")
    names, place = list[str](), None
    while True:
        page = run.upstream.fetch_workspaces(place)
        names += [owner.username for owner in page.rows if owner.username]
        if page.place is None or page.place == place:
            break
        place = page.place
    names = _once_each(names)
    for lost in sorted(set(_formerly(run)) - {name.lower() for name in names}):
        run.fail(Failure("workspace", lost, "no longer among the caller's workspaces; its rows are kept"))
    _remember(run, "workspaces", names)
    return names


def _once_each(names: Iterable[str]) -> list[str]:
    """Drop names that differ from an earlier one in nothing but case: Bitbucket takes them for the same."""
    return list({name.lower(): name for name in reversed(list(names))}.values())[::-1]


def _formerly(run: Run) -> list[str]:
    """Name the workspaces that earlier runs have listed."""
    found = run.store.rows(
        "SELECT substr(stream, 11) FROM cursors WHERE upstream_id = ? AND stream LIKE 'workspace:%'",
        (run.upstream_id,),
    )
    return [str(row[0]) for row in found]
