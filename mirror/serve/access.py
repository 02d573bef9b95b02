"""What an actor may open: SQL on a mirror, its tables, the download of its file."""

import sqlite3
from typing import TYPE_CHECKING, Any

from mirror.queries.visibility import hides
from mirror.serve.auth import Actor, caller_of
from mirror.serve.database import mirror_named, mirrors

if TYPE_CHECKING:
    from datasette.app import Datasette


class ActorVisitor:
    """The actor whose SQL a request runs; None for a stranger."""

    def __init__(self, actor: Actor | None) -> None:
        self._actor = actor

    def sees_all(self, database: str) -> bool:
        """Return whether the actor may see everything in a mirror."""
        return caller_of(self._actor, database).sees_all

    def lacks(self, connection: sqlite3.Connection, database: str) -> bool:
        """Return whether the mirror on a connection holds a row that is hidden from the actor."""
        return hides(connection, caller_of(self._actor, database))


STRANGER = ActorVisitor(None)


def may_download(datasette: "Datasette", actor: Actor | None, resource: Any) -> bool:
    """Return whether an actor may download a file: only if nothing in it is hidden from the actor."""
    return not isinstance(resource, str) or (
        mirror_named(datasette, resource) is None or ActorVisitor(actor).sees_all(resource)
    )


async def is_closed(datasette: "Datasette", actor: Actor | None, resource: Any) -> bool:
    """Return whether a database, or anything in it, is closed to an actor.

    The answer is the same for all actions on a mirror, including those of other plugins. The in-memory
    database of `--crossdb` reads all files. It is open only to an actor who sees everything in each mirror.
    """
    name = resource[0] if isinstance(resource, tuple) else resource
    if not isinstance(name, str):
        return False
    asking = ActorVisitor(actor)
    if datasette.crossdb and name == "_memory":
        return not all(asking.sees_all(database.name) for database in mirrors(datasette))
    database = mirror_named(datasette, name)
    if database is None or asking.sees_all(name):
        return False
    if _has_tokens(resource) or database.lacks_changes():
        return True
    return bool(await database.execute_fn(lambda connection: asking.lacks(connection, name)))


def _has_tokens(resource: Any) -> bool:
    """Return whether a resource is the table of tokens, or that of the writes made with them."""
    return isinstance(resource, tuple) and str(resource[1]).lower() in ("api_tokens", "writes")
