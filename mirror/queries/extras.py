"""Data of API 2.0 that no column holds (`object_difference`), as far as a caller may see it."""

import json
import logging
import sqlite3
from collections.abc import Iterable
from functools import lru_cache

from mirror.addresses import Json
from mirror.object_difference import PUBLIC, changed, public_part, unpacked
from mirror.queries.memory import file_state
from mirror.queries.rows import fetch, fetch_value
from mirror.queries.visibility import Caller

log = logging.getLogger(__name__)

_SCHEMES = {"branch": "ref", "tag": "ref", "branch-1.0": "ref-1.0", "tag-1.0": "ref-1.0"}


def extras_of(
    connection: sqlite3.Connection, caller: Caller, kind: str, ids: Iterable[int]
) -> dict[int, Json]:
    """Return the extras of some objects by the numbers of their rows."""
    if not holds_extras(connection):
        return {}
    found = fetch(
        connection,
        """SELECT row_id, anonymous, value FROM extras
           WHERE kind = :kind AND name = '' AND row_id IN (SELECT value FROM json_each(:ids))""",
        {"kind": kind, "ids": json.dumps(sorted(set(ids)))},
    )
    return {row[0]: _shown(kind, row[2], everything=caller.sees_all or row[1] == 1) for row in found}


def extra_of(connection: sqlite3.Connection, caller: Caller, kind: str, row_id: int) -> Json | None:
    """Return the extra of one object; None if its columns hold all data."""
    return extras_of(connection, caller, kind, [row_id]).get(row_id)


def told_by_api1(connection: sqlite3.Connection, caller: Caller, kind: str, row_id: int) -> dict[str, Json]:
    """Return the data of API 1.0 about the branches, the tags or the repository of a row, by name."""
    if not holds_extras(connection):
        return {}
    found = fetch(
        connection,
        "SELECT name, anonymous, value FROM extras WHERE kind = :kind AND row_id = :id",
        {"kind": f"{kind}-1.0", "id": row_id},
    )
    everything = caller.sees_all
    return {
        name: changed({}, _shown(f"{kind}-1.0", value, everything=everything or anonymous == 1), "", "")
        for name, anonymous, value in found
    }


def ref_extras_of(
    connection: sqlite3.Connection, caller: Caller, repository_id: int, names: Iterable[str]
) -> dict[tuple[str, str], Json]:
    """Return the extras of branches and tags of a repository, by kind and name."""
    if not holds_extras(connection):
        return {}
    found = fetch(
        connection,
        """SELECT kind, name, anonymous, value FROM extras WHERE kind IN ('branch', 'tag')
           AND row_id = :id AND name IN (SELECT value FROM json_each(:names))""",
        {"id": repository_id, "names": json.dumps(list(names))},
    )
    return {
        (row[0], row[1]): _shown(row[0], row[3], everything=caller.sees_all or row[2] == 1) for row in found
    }


def holds_extras(connection: sqlite3.Connection) -> bool:
    """Tell whether the file holds any: looked up once for each state of the file."""
    state = file_state(connection)
    if state.has_extras is None:
        state.has_extras = bool(fetch_value(connection, "SELECT EXISTS (SELECT 1 FROM extras)"))
    return state.has_extras


@lru_cache(maxsize=4096)
def _shown(kind: str, value: bytes, *, everything: bool) -> Json:
    """Read an extra and cache it; do not change the result. An unreadable one is empty."""
    try:
        extra = unpacked(value)
    except ValueError as error:
        log.warning("%s", error)
        return {}
    return extra if everything else public_part(extra, PUBLIC[_SCHEMES.get(kind, kind)])
