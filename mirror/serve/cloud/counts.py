"""How many repositories a list has, from indexes alone: no row is looked at, however many there are."""

import sqlite3
from collections.abc import Callable

import msgspec

from mirror.serve.callers import Caller
from mirror.serve.cloud.reads import Values, tuples
from mirror.serve.lookups import visible


class Owners(msgspec.Struct, frozen=True):
    """Whose repositories are counted: a condition on `r.owner_id`, and its values."""

    condition: str
    values: Values


def counter(caller: Caller, owners: Owners) -> Callable[[sqlite3.Connection], int]:
    """Count the living repositories of some owners that a caller may see.

    All, less the gone ones, less the private ones that live, plus those of the latter that are the caller's.
    """

    def count(connection: sqlite3.Connection) -> int:
        where = owners.condition
        parts = [f"(SELECT count(*) FROM repositories r WHERE {where})"]
        parts.append(f"-(SELECT count(*) FROM repositories r WHERE deleted_at IS NOT NULL AND {where})")
        if not caller.sees_all:
            parts += [
                f"-(SELECT count(*) FROM repositories r WHERE is_private = 1 AND {where})",
                f"""+(SELECT count(*) FROM repositories r
                    WHERE deleted_at IS NOT NULL AND is_private = 1 AND {where})""",
            ]
        if not caller.sees_all and caller.user_ids:
            parts.append(
                f"""+(SELECT count(*) FROM repositories r WHERE is_private = 1 AND deleted_at IS NULL
                    AND {visible(caller, "r")} AND {where})"""
            )
        return int(tuples(connection, f"SELECT {' '.join(parts)}", owners.values)[0][0])

    return count
