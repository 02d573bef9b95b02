"""What a run makes sure of before it lists anything: the address, the credential, the workspaces."""

from collections.abc import Iterable
from typing import Any

import msgspec

from mirror.errors import CredentialsRefused, UpstreamShapeError
from mirror.store.runs import Failure
from mirror.sync.engine import ask_apart
from mirror.sync.listing_state import Landmark, is_identity, next_landmark
from mirror.sync.run import Run
from mirror.times import from_text

LIST_OF_WORKSPACES = "the list of workspaces"


class _Checked(msgspec.Struct):
    """When something that need not be asked in every run was asked last, and what for.

    `next` is where a list of several pages goes on, if a run ended in it, `pages` and `landmark` are as in
    `mirror.sync.listing_state`. `bad` tells that something of the pages until there was not understood.
    """

    at: str
    bucket: str
    names: list[str] = []
    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    bad: bool = False


def check_caller(run: Run, *, since: str | None = None) -> None:
    """Find out whether the credential is still somebody's, before anything is concluded from its view.

    With `since`, an answer from before that moment is not enough. Raises CredentialsRefused; Bitbucket
    answers public listings to a dead token as if to nobody.
    """
    if run.upstream.anonymous:
        return
    recent = _recent(run, "caller")
    if recent and (since is None or recent.at > since):
        return
    ask_apart(run.upstream.fetch_current_user, stop=run.stop, tick=run.tick)
    _remember(run, "caller", _checked(run))


def find_workspaces(run: Run) -> list[str]:
    """Name the workspaces to mirror: the configured ones, or all that the caller can see.

    With them come those whose name another one has taken, by their identity: their rows are mirrored still.
    """
    named = _named_workspaces(run)
    return [*named, *(name for name in formerly_listed(run, named) if is_identity(name))]


def _named_workspaces(run: Run) -> list[str]:
    if run.config.workspaces is not None:
        return _once_each(run.config.workspaces)
    recent = _recent(run, "workspaces")
    if recent and recent.next is None and run.is_due("workspaces", LIST_OF_WORKSPACES):
        recent = None
    if recent and recent.next is None:
        return recent.names
    if run.upstream.anonymous and run.config.kind == "cloud":
        raise CredentialsRefused("without a credential, name the workspaces: workspaces = [...]")
    found = recent or _checked(run)
    while True:
        found = _with_page(run, found)
        _remember(run, "workspaces", found)
        if found.next is None:
            return found.names


def _with_page(run: Run, found: _Checked) -> _Checked:
    """Ask for a page of the workspaces; a list whose links go in a circle ends there, and is told."""
    page = ask_apart(lambda: run.upstream.fetch_workspaces(found.next), stop=run.stop, tick=run.tick)
    names = _once_each([*found.names, *(owner.username for owner in page.rows if owner.username)])
    pages, landmark, link = found.pages + 1, found.landmark, page.next
    errors = [f"{bad.what}: {bad.error}" for bad in page.bad]
    if page.note:
        run.note(page.note)
    try:
        landmark = next_landmark(page, asked=found.next, landmark=landmark, pages=pages)
    except UpstreamShapeError as error:
        link = None
        errors.append(str(error))
    bad = found.bad or bool(errors)
    if errors:
        run.fail(Failure("workspaces", LIST_OF_WORKSPACES, "; ".join(errors)))
    elif link is None and not bad:
        run.answered("workspaces", LIST_OF_WORKSPACES)
    return _checked(run, names=names, next=link, landmark=landmark, pages=pages, bad=bad)


def formerly_listed(run: Run, names: Iterable[str]) -> list[str]:
    """Name the workspaces that earlier runs have listed and that are not among the names.

    They are listed on until they are known to be gone: dropping out of the caller's list proves nothing.
    """
    known = {name.lower() for name in names}
    found = run.store.rows(
        "SELECT substr(stream, 11) FROM cursors WHERE upstream_id = ? AND stream LIKE 'workspace:%'",
        (run.upstream_id,),
    )
    return sorted(str(row[0]) for row in found if row[0] not in known)


def forget_links(run: Run) -> None:
    """Begin every listing anew: their links lead to an address that is no longer the configured one."""
    with run.store.transaction() as connection:
        for name in formerly_listed(run, ()):
            place = msgspec.structs.replace(run.place(name), listing=None, members=None, swept_at=None)
            run.save_place(name, place)
        connection.execute(
            "DELETE FROM cursors WHERE upstream_id = ? AND (stream LIKE 'refs:%' OR stream = 'workspaces')",
            (run.upstream_id,),
        )
        connection.execute(
            "DELETE FROM sync_failures WHERE upstream_id = ? AND kind = 'page'", (run.upstream_id,)
        )


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


def _checked(run: Run, **found: Any) -> _Checked:
    return _Checked(at=run.now_text(), bucket=run.budget.buckets["api"], **found)


def _remember(run: Run, stream: str, checked: _Checked) -> None:
    run.save_cursor(stream, msgspec.json.encode(checked).decode())


def _once_each(names: Iterable[str]) -> list[str]:
    """Drop names that differ from an earlier one in nothing but case: Bitbucket takes them for the same."""
    return list({name.lower(): name for name in reversed(list(names))}.values())[::-1]
