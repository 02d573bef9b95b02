"""Which part of a sync a run does: all of it, unless a schedule of its own is kept for a part."""

from collections.abc import Collection, Iterable

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a run; what it leaves out keeps its place for another one.

    `listings` reads workspaces, of them all or of those in `due` alone (lower case); `leftovers` asks again
    for what was missing before; `refs` reads stale branches and tags. `kind` is what `sync_runs` calls such
    a run, None where the listings tell.
    """

    listings: bool = True
    leftovers: bool = True
    refs: bool = True
    due: Collection[str] | None = None
    kind: str | None = None

    def to_list(self, workspaces: Iterable[str]) -> list[str]:
        """Pick the workspaces whose turn it is."""
        if not self.listings:
            return []
        return [name for name in workspaces if self.due is None or name.lower() in self.due]


EVERYTHING = Part()
REFS = Part(listings=False, leftovers=False, kind="refs")
RETRY = Part(listings=False, kind="retry")
