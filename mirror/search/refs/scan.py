"""Search refs without the index: read the refs of some repositories, and compare each.

It answers what the index cannot: filters that it does not know, and what it does not contain yet.
"""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from mirror.search.index.refs.backlog import AFFECTED
from mirror.search.index.refs.format import COLLECTION, ORDER, TABLES, repository_of
from mirror.search.query import plain_cursor
from mirror.search.refs.query import COMMIT, RefCondition, RefQuery
from mirror.search.scan import may_contain


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


class Affected:
    """The repositories of which the index is out of date: what it has of them, and how they are now."""

    def __init__(
        self, connection: sqlite3.Connection, query: RefQuery, shown: RefCondition, up_to: int
    ) -> None:
        self._connection = connection
        self._query = query
        cursor = plain_cursor(connection)
        self.ids = {row[0] for row in cursor.execute(f"SELECT repository_id FROM {AFFECTED}")}
        self.now = list[RefHit]()
        self.was = list[tuple[int, int]]()
        """The match class and the repository of each ref that the index has, of those that may be shown."""
        if self.ids:
            self.was = [*self._unchanged(up_to), *self._changed(up_to)]
            here = RefCondition(f"r.id IN {AFFECTED} AND {shown.sql}", shown.values)
            self.now = list(scanned_hits(connection, query, here))
        new = RefCondition(f"r.id > {up_to} AND {shown.sql}", shown.values)
        known = cursor.execute("SELECT coalesce(max(id), 0) FROM repositories").fetchone()[0]
        if known > up_to:
            here = RefCondition(f"r.id NOT IN {AFFECTED} AND {new.sql}", new.values)
            self.now += scanned_hits(connection, query, here)

    def _unchanged(self, up_to: int) -> Iterator[tuple[int, int]]:
        """Yield the matching refs that the index has as they are."""
        collection = f"coalesce(m.was, {COLLECTION.format(r='r')})"
        for kind in self._query.kinds:
            yield from self._matching(
                f"""SELECT t.repository_id, t.name, {collection} FROM {AFFECTED} a
                    JOIN repositories r ON r.id = a.repository_id AND r.id <= {up_to}
                    LEFT JOIN search_ref_moved m ON m.repository_id = r.id
                    CROSS JOIN {TABLES[kind]} t ON t.repository_id = r.id
                    WHERE {may_contain("t.name")} AND NOT EXISTS (SELECT 1 FROM search_ref_pending p
                        WHERE p.repository_id = t.repository_id AND p.kind = {kind} AND p.name = t.name)"""
            )

    def _changed(self, up_to: int) -> Iterator[tuple[int, int]]:
        """Yield the matching refs that the index has as they were."""
        kinds = ", ".join(map(str, self._query.kinds))
        return self._matching(
            f"""SELECT t.repository_id, t.name, coalesce(m.was, {COLLECTION.format(r="r")})
                FROM search_ref_pending t LEFT JOIN search_ref_moved m ON m.repository_id = t.repository_id
                LEFT JOIN repositories r ON r.id = t.repository_id
                WHERE t.was_hash IS NOT NULL AND t.kind IN ({kinds}) AND t.repository_id <= {up_to}
                    AND {may_contain("t.name")}"""
        )

    def _matching(self, sql: str) -> Iterator[tuple[int, int]]:
        for repository, name, collection in plain_cursor(self._connection).execute(
            sql, {"part": self._query.part}
        ):
            match = self._query.match(name) if collection in self._query.collections else None
            if match is not None:
                yield match, repository
