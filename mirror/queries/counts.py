"""How many repositories a list has, from indexes alone: no row is looked at, however many there are."""

import sqlite3
from collections.abc import Callable

import msgspec

from mirror.queries.caller import Caller
from mirror.queries.memory import state
from mirror.queries.repositories import Values, tuples
from mirror.queries.visible import visible


class Owners(msgspec.Struct, frozen=True):
    """Whose repositories are counted: a condition on `r.owner_id`, empty for everybody's, and its values."""

    condition: str
    values: Values

    def counting(self, *conditions: str) -> str:
        """Return the statement that counts repositories; without any condition, SQLite looks at no entry."""
        where = " AND ".join(one for one in (*conditions, self.condition) if one)
        return f"(SELECT count(*) FROM repositories r {'WHERE ' if where else ''}{where})"


def counter(caller: Caller, owners: Owners) -> Callable[[sqlite3.Connection], int]:
    """Count the living repositories of some owners that a caller may see.

    All, less the gone ones, less the private ones that live, plus those of the latter that are the caller's.
    """
    private = ("r.is_private = 1", "r.deleted_at IS NULL")
    parts = [owners.counting(), "-", owners.counting("r.deleted_at IS NOT NULL")]
    if not caller.sees_all:
        parts += ["-", owners.counting(*private)]
        if caller.user_ids:
            parts += ["+", owners.counting(*private, visible(caller, "r"))]

    sql = f"SELECT {' '.join(parts)}"
    return lambda connection: _remembered(connection, sql, owners.values)


def _remembered(connection: sqlite3.Connection, sql: str, values: Values) -> int:
    """Count once for each state of the file: counting 100,000 costs as much as reading the page."""
    counts, key = state(connection).counts, (sql, repr(values))
    if key not in counts:
        counts[key] = int(tuples(connection, sql, values)[0][0])
    return counts[key]
