"""Checks before a run lists anything: the address, the credential, the workspaces."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from mirror.errors import CredentialsRefused, UpstreamRefused, UpstreamShapeError
from mirror.store.crawl_state import LastCheck
from mirror.store.cursors import Cursors
from mirror.store.repair import correct_future_moments, latest_ahead
from mirror.store.runs import Failure, Failures
from mirror.sync.engine import ask_once
from mirror.sync.landmarks import next_landmark
from mirror.sync.listing_state import is_identity, refuse_cut_off
from mirror.sync.run import Run
from mirror.sync.run_record import record_progress
from mirror.times import from_text, to_text
from mirror.upstream.response import moment_of

LIST_OF_WORKSPACES = "the list of workspaces"

BEHIND = timedelta(minutes=5)
"""How far the clock must be behind the upstream's before the upstream's time is taken."""


def tell_time(run: Run) -> None:
    """Take the upstream's time where the times ahead of now are right, and this machine's clock is behind.

    `correct_moments` would give all recorded changes the time of a computer that started in 1970.
    """
    now, names = run.now(), [*(run.config.workspaces or ()), *formerly_listed(run, ())]
    latest = _latest_ahead(run, now)
    if latest is None:
        return

    def ask() -> object:
        return run.upstream.fetch_workspace(names[0]) if names else run.upstream.fetch_workspaces(None)

    with suppress(UpstreamRefused, UpstreamShapeError):  # each answer tells the time
        ask_once(ask, stop=run.stop, tick=partial(record_progress, run))
    date = moment_of(run.budget.latest_headers.get("date", ""))
    if date is not None and date - now > BEHIND and _latest_ahead(run, date) is None:
        run.note(
            f"this machine's clock is behind: it says {to_text(now)[:16]}Z, and the upstream"
            f" {to_text(date)[:16]}Z, which counts; set it (timedatectl set-ntp true)"
        )
        run.begin_at(max(date, from_text(latest)))  # a Date has no fractions


def _latest_ahead(run: Run, now: datetime) -> str | None:
    """Return the latest time in the file that is ahead of a moment; None if none is."""
    with run.store.reading() as connection:
        return latest_ahead(connection, run.upstream_id, now)


def correct_moments(run: Run, *, thoroughly: bool) -> None:
    """Correct moments ahead of now, which a wrong clock wrote; `thoroughly` searches all rows."""
    now = run.now()
    with run.store.transaction() as connection:
        latest = latest_ahead(connection, run.upstream_id, now)
        if latest is not None:
            run.note(f"the clock was ahead once: times up to {latest} are ignored")
        if latest is not None or thoroughly:  # reading all rows takes a while
            correct_future_moments(connection, run.upstream_id, now)


def check_caller(run: Run, *, since: str | None = None) -> None:
    """Check that the credential is still valid, before anything is concluded from what it sees.

    With `since`, an answer from before that moment is not enough. Raises CredentialsRefused.
    """
    # Bitbucket answers a dead token as it answers strangers, so private repositories would look deleted.
    if run.upstream.anonymous:
        _forget_caller(run)
        return
    with run.cursors() as cursors:
        before = cursors.caller.read()
    recent = _recent(run, before)
    if recent and (since is None or recent.at > since):
        return
    ask_once(run.upstream.fetch_current_user, stop=run.stop, tick=partial(record_progress, run))
    checked = _checked(run, since=run.now_text())
    is_new = before is None or before.bucket != checked.bucket
    if before is not None and not is_new:
        checked.since = min(before.since, checked.since)
    with run.store.transaction() as connection:
        if is_new:  # another credential may see more
            run.failures.retry_all()
        Cursors(connection, run.upstream_id).caller.save(checked, at=run.now_text())


def is_caller_known(run: Run) -> bool:
    """Return whether a run begins without a request for the caller."""
    with run.cursors() as cursors:
        return run.upstream.anonymous or _recent(run, cursors.caller.read()) is not None


def _forget_caller(run: Run) -> None:
    """Let the next credential be a new one, even if it is the former one again."""
    with run.cursors() as cursors:
        if cursors.caller.read() is None:
            return
    with run.store.transaction() as connection:
        Cursors(connection, run.upstream_id).caller.drop()


def find_workspaces(run: Run) -> list[str]:
    """Name the workspaces to mirror: the configured ones, or all that the caller can see."""
    named = _named_workspaces(run)
    # Those whose name another one has taken are still mirrored, by their identity.
    return [*named, *(name for name in formerly_listed(run, named) if is_identity(name))]


def _named_workspaces(run: Run) -> list[str]:
    if run.config.workspaces is not None:
        return _once_each(run.config.workspaces)
    with run.cursors() as cursors:
        recent = _recent(run, cursors.workspace_list.read())
    if recent and recent.next is None and run.failures.is_due("workspaces", LIST_OF_WORKSPACES):
        recent = None
    if recent and recent.next is None:
        return recent.names
    if run.upstream.anonymous and run.config.kind == "cloud":
        raise CredentialsRefused("without a credential, name the workspaces: workspaces = [...]")
    found = recent or _checked(run)
    while True:
        found = _with_page(run, found)
        with run.cursors() as cursors:
            cursors.workspace_list.save(found, at=run.now_text())
        if found.next is None:
            return found.names


def _with_page(run: Run, found: LastCheck) -> LastCheck:
    """Request a page of the workspaces; a loop of links or a lost page ends the list with a failure."""
    page = ask_once(
        lambda: run.upstream.fetch_workspaces(found.next), stop=run.stop, tick=partial(record_progress, run)
    )
    names = _once_each([*found.names, *(owner.username for owner in page.rows if owner.username)])
    pages, landmark, link = found.pages + 1, found.landmark, page.next
    errors = [f"{bad.what}: {bad.error}" for bad in page.bad]
    if page.note:
        run.note(page.note)
    try:
        landmark = next_landmark(page, asked=found.next, landmark=landmark, pages=pages)
        refuse_cut_off(page, pages=pages)
    except UpstreamShapeError as error:
        link = None
        errors.append(str(error))
    bad = found.bad or bool(errors)
    if errors:
        run.failures.add(Failure("workspaces", LIST_OF_WORKSPACES, "; ".join(errors)))
    elif link is None and not bad:
        run.failures.answered("workspaces", LIST_OF_WORKSPACES)
        _drop_failures_of_others(run, names)
    return _checked(run, names=names, next=link, landmark=landmark, pages=pages, bad=bad)


def _drop_failures_of_others(run: Run, names: Iterable[str]) -> None:
    """Drop failures of workspaces that the list no longer names and of which nothing is held."""
    known = {name.lower() for name in names}
    for name in run.failures.subjects("workspace"):
        if name.lower() not in known and not run.states.exists(name):
            run.failures.answered("workspace", name)


def formerly_listed(run: Run, names: Iterable[str]) -> list[str]:
    """Name the workspaces that earlier runs have listed and that are not among the names."""
    known = {name.lower() for name in names}
    with run.cursors() as cursors:
        return sorted(name for name in cursors.workspace_names() if name not in known)


def forget_links(run: Run) -> None:
    """Start every listing over: its links lead to an address that is no longer configured."""
    with run.store.transaction() as connection:
        for name in formerly_listed(run, ()):
            state = msgspec.structs.replace(run.states.read(name), listing=None, members=None, swept_at=None)
            run.states.save(name, state)
        cursors = Cursors(connection, run.upstream_id)
        cursors.drop_refs()
        cursors.workspace_list.drop()
        failures = Failures(connection, run.upstream_id)
        failures.drop_kinds("page")
        failures.retry_all()


def _recent(run: Run, check: LastCheck | None) -> LastCheck | None:
    """Return a check, unless it is old or of another credential, or more than listings depends on it."""
    if check is None or run.full or run.confirm_absence:
        return None
    age = (run.now() - from_text(check.at)).total_seconds()
    # Within half the overlap, the next listing still looks back on what a wrong answer hid.
    is_recent = 0 <= age < run.config.overlap / 2 and check.bucket == run.budget.buckets["api"]
    return check if is_recent else None


def _checked(run: Run, **found: Any) -> LastCheck:
    return LastCheck(at=run.now_text(), bucket=run.budget.buckets["api"], **found)


def _once_each(names: Iterable[str]) -> list[str]:
    """Drop names that differ from an earlier one only in case."""
    # To Bitbucket they are the same. The first spelling wins.
    return list({name.lower(): name for name in reversed(list(names))}.values())[::-1]
