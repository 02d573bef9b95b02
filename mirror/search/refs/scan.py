"""Search refs without the index: read the refs of some repositories, and compare each.

It answers what the index cannot: filters that it does not know, and what it does not contain yet.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mirror.search.index.refs.changes import changed_refs
from mirror.search.index.refs.layout import ORDER, TABLES, repository_of
from mirror.search.query import plain_cursor
from mirror.search.refs.query import COMMIT, RefCondition, RefQuery
from mirror.search.scan import may_contain

Place = tuple[int, int, str]
"""Where a ref is among those of a match class: its order, its kind and its name."""


class RefHit(NamedTuple):
    """A ref that matches: its match class, its order, which ends with the repository, its kind and its name.

    Hits sort in the order of the results.
    """

    match: int
    order: int
    kind: int
    name: str

    @property
    def repository(self) -> int:
        """The id of the repository."""
        return repository_of(self.order)


_IS_COMMIT = "(:commit <> '' AND substr(lower(t.target_hash), 1, length(:commit)) = :commit)"
_ORDER = ORDER.format(date="t.target_date", repository="t.repository_id")


def scanned_hits(connection: sqlite3.Connection, query: RefQuery, which: RefCondition) -> Iterator[RefHit]:
    """Yield the matching refs of the repositories that meet a condition, in no particular order."""
    values = which.values | {"part": query.part, "commit": query.commit}
    for kind in query.kinds:
        rows = plain_cursor(connection).execute(
            f"""SELECT t.name, {_ORDER}, t.target_hash FROM repositories r
                CROSS JOIN {TABLES[kind]} t ON t.repository_id = r.id
                WHERE {which.sql} AND ({may_contain("t.name")} OR {_IS_COMMIT})""",
            values,
        )
        for name, order, target in rows:
            match = query.match(name)
            if match is not None:
                yield RefHit(match, order, kind, name)
            elif query.is_commit(target):
                yield RefHit(COMMIT, order, kind, name)


class Unindexed:
    """What of the matches the index has otherwise than it is: refs that it has no more or not yet.

    gone: by match class, the places of refs that the index has and that are not there, or elsewhere now.
    joined: refs that the index has not, or elsewhere. repositories: how many more have a match.
    pointing: repositories that may have a ref at the commit that is asked for.
    """

    def __init__(self, connection: sqlite3.Connection, query: RefQuery) -> None:
        self.gone = defaultdict[int, set[Place]](set)
        self.joined = list[RefHit]()
        self.pointing = set[int]()
        before, after = set[int](), set[int]()
        which = "1" if query.commit else may_contain("{row}.name")
        lists = set(query.lists)
        for repository, kind, name, was, now in changed_refs(connection, which, {"part": query.part}):
            match = query.match(name)
            if query.commit and now is not None and query.may_be_commit(now.hash):
                self.pointing.add(repository)
            if match is not None and was is not None and was.list in lists:
                self.gone[match].add((was.order, kind, name))
                before.add(repository)
            if match is not None and now is not None and now.list in lists:
                self.joined.append(RefHit(match, now.order, kind, name))
                after.add(repository)
        others = _with_other_matches(connection, query, before ^ after) if before ^ after else set[int]()
        self.repositories = len(after - before - others) - len(before - after - others)


_UNCHANGED = """SELECT t.repository_id, t.name FROM {table} t
    WHERE t.repository_id IN (SELECT value FROM json_each(:ids)) AND {may_contain}
        AND t.repository_id <= (SELECT up_to FROM search_ref_state)
        AND t.repository_id NOT IN (SELECT repository_id FROM search_ref_moved)
        AND NOT EXISTS (SELECT 1 FROM search_ref_pending p
            WHERE p.repository_id = t.repository_id AND p.kind = {kind} AND p.name = t.name)"""


def _with_other_matches(connection: sqlite3.Connection, query: RefQuery, ids: Iterable[int]) -> set[int]:
    """Return which of some repositories have a match that the index has as it is."""
    values = {"ids": json.dumps(list(ids)), "part": query.part}
    found = set[int]()
    for kind in query.kinds:
        sql = _UNCHANGED.format(table=TABLES[kind], kind=kind, may_contain=may_contain("t.name"))
        rows = plain_cursor(connection).execute(sql, values)
        found.update(repository for repository, name in rows if query.match(name) is not None)
    return found
