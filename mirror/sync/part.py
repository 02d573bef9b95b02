"""Which part of a sync a run does: all of it, unless a schedule of its own is kept for a part."""

from collections.abc import Collection, Iterable

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a run; what it leaves out keeps its place for another one.

    `listings` reads workspaces, of them all or of those in `due` alone (lower case); `leftovers` asks again
    for what was missing before; `refs` reads stale branches and tags, `new_refs` those of repositories that
    this run sees first. `kind` is what `sync_runs` calls such a run, None where the listings tell.
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
        """Pick the workspaces whose turn it is; `also` are marked ones, in lower case like those in `due`."""
        if not self.listings:
            return []
        turn = None if self.due is None else {*self.due, *also}
        return [name for name in workspaces if turn is None or name.lower() in turn]


EVERYTHING = Part()
REFS = Part(listings=False, leftovers=False, kind="refs")
RETRY = Part(listings=False, kind="retry")
MARKED = Part(due=(), refs=False, new_refs=True, kind="marked")
