"""A published file beside the mirror: its tables and SQL are open to everybody, whatever the mirror holds.

It is a database of its own, named after its file, and attached as soon as there is one: `mirror publish` may
make it while the server runs. A newer one in its place is read by the next request.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from datasette.database import Database

from mirror.errors import StoreError
from mirror.serve.database import GuardedDatabase, guard
from mirror.store.files import open_reader
from mirror.store.schema import snapshot_moment

if TYPE_CHECKING:
    from datasette.app import Datasette

log = logging.getLogger(__name__)


class PublicSnapshot:
    """The published file of one server; `name` is that of its database, None before there is a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refused: object = None
        self.name: str | None = None

    def attach(self, datasette: "Datasette") -> None:
        """Attach the file if it is there; one that is no snapshot is left alone, and logged once."""
        if self.name is not None:
            return
        try:
            found = self._path.stat()
        except OSError:
            return
        state = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if state == self._refused:
            return
        complaint = self._complaint()
        if complaint:
            self._refused = state
            log.warning("public_snapshot: %s", complaint)
            return
        added: Database = datasette.add_database(Database(datasette, path=str(self._path), is_mutable=True))
        self.name = str(added.name)
        guard(datasette)

    def database_in(self, datasette: "Datasette") -> GuardedDatabase | None:
        """Return the attached database."""
        found = datasette.databases.get(self.name) if self.name is not None else None
        return found if isinstance(found, GuardedDatabase) else None

    def _complaint(self) -> str:
        """Say why a file is not attached; "" for a snapshot."""
        try:
            with closing(open_reader(self._path)) as connection:
                if snapshot_moment(connection) is not None:
                    return ""
        except (StoreError, sqlite3.Error) as error:
            return str(error)
        return f"{self._path}: no published file; make one: mirror publish {self._path} --force"
