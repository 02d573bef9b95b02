"""Which parts of a sync a run does, and rounds: the next run resumes an interrupted one.

A round begins with the listings and ends when nothing is left to do; within it no workspace is listed twice.
If every run began with all listings, a mirror of many workspaces with a small budget would spend it on them
and never list any refs.
"""

from collections.abc import Collection, Iterable
from datetime import timedelta

import msgspec

from mirror.store.crawl_state import Round
from mirror.sync.run import Run
from mirror.times import from_text


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a sync that a run does; what it leaves out is left to another run.

    - `listings`: list workspaces, all of them or (`due`, in lower case) only these.
    - `leftovers`: ask again for what was missing before.
    - `refs`: list stale branches and tags. `new_refs`: only those of repositories that this run saw first.
    - `kind`: what `sync_runs` calls such a run; None for full or incremental, as the listings were.
    """

    listings: bool = True
    leftovers: bool = True
    refs: bool = True
    new_refs: bool = False
    due: Collection[str] | None = None
    kind: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every workspace is listed."""
        return self.listings and self.due is None

    def to_list(self, workspaces: Iterable[str], also: Collection[str] = ()) -> list[str]:
        """Pick the workspaces in scope; `also` are hinted ones, in lower case like those in `due`."""
        if not self.listings:
            return []
        turn = None if self.due is None else {*self.due, *also}
        return [name for name in workspaces if turn is None or name.lower() in turn]


EVERYTHING = Scope()
REFS = Scope(listings=False, leftovers=False, kind="refs")
RETRY = Scope(listings=False, kind="retry")
HINTS = Scope(due=(), refs=False, new_refs=True, kind="marked")


GOOD_FOR = timedelta(hours=1)
TIMES = 4
LONGEST = timedelta(days=1)
"""After this, a round whose listings were not finished starts over."""


def resume_round(run: Run) -> None:
    """Continue the round of a run that was interrupted, or begin one."""
    found = _unfinished(run)
    if found is None:
        found = Round(began=run.now_text())
        _save(run, found)
    elif found.listed:
        run.note("resuming an interrupted run; its listings are not repeated")
    run.round = found.began


def listings_done(run: Run) -> None:
    """Note that every workspace has been listed."""
    _save(run, Round(began=run.round, listed=run.now_text()))


def end_round(run: Run) -> None:
    """End the round: the next run begins with the listings."""
    with run.cursors() as cursors:
        cursors.round.drop()


def _unfinished(run: Run) -> Round | None:
    """Read the round to continue.

    Its listings are good for an hour, or four times as long as they took, so that most of a small budget is
    left for branches and tags.
    """
    with run.cursors() as cursors:
        found = cursors.round.read()
    if found is None:
        return None
    began, now = from_text(found.began), run.now()
    if run.full or now < began:
        return None
    if found.listed is None:
        return found if now - began < LONGEST else None
    listed = from_text(found.listed)
    if now < listed:
        return None
    return found if now - listed < max(GOOD_FOR, TIMES * (listed - began)) else None


def _save(run: Run, found: Round) -> None:
    with run.cursors() as cursors:
        cursors.round.save(found, at=run.now_text())
