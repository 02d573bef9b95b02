"""Reading the refs of a repository that a write has made: until then nobody can say which it has."""

from mirror.errors import MirrorError
from mirror.model import Ref, Repository, RepositoryKey
from mirror.upstream.writes import WritableUpstream
from mirror.write.saving import Saving

MOST_PAGES = 20
"""A fork with more refs is left to the next sync: somebody is waiting for the answer to the write."""


def read_refs(saving: Saving, upstream: WritableUpstream, made: Repository) -> None:
    """Read and save the refs of a repository whose refs were never read; raises nothing.

    The write is done, whatever fails here. What could not be read is marked, for a run to read soon; so is a
    fork, because upstreams copy its refs after they have answered.
    """
    try:
        row_id = saving.without_refs(made)
        if row_id is None:
            return
        refs = _all_refs(upstream, made)
        if refs is not None:
            saving.save_refs(row_id, refs)
        if refs is None or made.parent_uuid is not None:
            saving.read_again_soon(made)
    except MirrorError:
        return


def _all_refs(upstream: WritableUpstream, made: Repository) -> list[Ref] | None:
    """Return all refs of a repository; None where they cannot be had, or not all of them are there yet."""
    key = RepositoryKey(uuid=made.uuid, full_name=made.full_name, scm=made.scm)
    refs, place = list[Ref](), None
    for _ in range(MOST_PAGES):
        try:
            page = upstream.fetch_refs(key, place)
        except MirrorError:
            return None
        refs += page.rows
        place = page.place
        if page.bad:
            return None
        if place is None:
            has_some = made.main_branch is not None or made.parent_uuid is not None
            return refs if refs or not has_some else None
    return None
