"""The past in SQL: `mirror_refs_at` and `mirror_repository_at`."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

from mirror.errors import NotFound
from mirror.queries.past import past_named, past_of
from mirror.queries.past_state import NOT_RECORDED, Past
from mirror.queries.visibility import OPERATOR
from mirror.store.changes import MEASURED
from mirror.times import Clock, past_moment, utc_now

_TOLD = (
    "id", "full_name", "slug", "name", "scm", "is_private", "description", "website", "language",
    "main_branch", "fork_policy", "has_issues", "has_wiki", "archived", "project_key", *MEASURED,
    *NOT_RECORDED, "created_at", "deleted_at", "gone_reason",
)  # fmt: skip
"""The columns of `mirror_repository_at`: all except those that may name a hidden parent."""


def register_past(
    connection: sqlite3.Connection,
    *,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
    clock: Clock = utc_now,
) -> None:
    """Add two SQL functions to a connection, for those who may read the whole file.

    ``mirror_refs_at(repository, moment)`` returns a JSON array of branches and tags, for `json_each`; a third
    argument is the name of those wanted. ``mirror_repository_at(repository, moment)`` returns a JSON object.
    `repository` is a name or a number, `moment` as for `mirror show --at`, in UTC where it names no zone.
    Both return NULL where nothing is known, and for a moment that is in the future or none. Example::

        SELECT value ->> 'target_hash' FROM json_each(mirror_refs_at('ann/tool', '2026-11-03', 'master'))

    :param reading: a context that is entered around each read
    """

    def found(repository: Any, moment: Any) -> Past | None:
        with reading():
            return _found(connection, repository, str(moment or ""), clock())

    def mirror_refs_at(repository: Any, moment: Any, name: str | None = None) -> str | None:
        past = found(repository, moment)
        if past is None or not past.ref_looks.before:
            return None
        wanted = [ref for ref in past.refs if name is None or ref.row.name == name]
        named = ("kind", "name", "target_hash")
        return json.dumps(
            [{**{key: getattr(ref.row, key) for key in named}, **ref.exported()} for ref in wanted]
        )

    def mirror_repository_at(repository: Any, moment: Any) -> str | None:
        past = found(repository, moment)
        return (
            None if past is None else json.dumps({name: past.columns[name] for name in _TOLD} | past.bounds())
        )

    connection.create_function("mirror_refs_at", 2, mirror_refs_at)
    connection.create_function("mirror_refs_at", 3, mirror_refs_at)
    connection.create_function("mirror_repository_at", 2, mirror_repository_at)


def _found(connection: sqlite3.Connection, repository: Any, moment: str, now: datetime) -> Past | None:
    try:
        at = past_moment(moment, now)
        if isinstance(repository, int):
            return past_of(connection, OPERATOR, repository, at)
        return past_named(connection, OPERATOR, str(repository), at)
    except (ValueError, NotFound):
        return None
