"""Which of the attached databases are mirrors, and what this server was told about them.

A mirror is known by its `PRAGMA application_id`; every other database is left alone. Settings come from
`mirror.serve.app.build`, or, under plain `datasette`, from the plugin configuration ``bitbucket-mirror``.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from datasette.utils import StartupError

from mirror.config import ServeConfig
from mirror.errors import ConfigError
from mirror.serve.peers import Peers
from mirror.store.schema import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasette.app import Datasette
    from datasette.database import Database

PLUGIN = "bitbucket-mirror"


class Served:
    """What one Datasette serves: its settings, its mirrors, the writer if there is one."""

    def __init__(self, datasette: "Datasette") -> None:
        self._config: ServeConfig | None = None
        self.writer: Any = None
        self.metadata: dict[str, Any] | None = None
        self.described: object = None
        self.peers = Peers()
        self.use_noted = dict[tuple[str, int], float]()
        self._known = WeakKeyDictionary["Database", bool]()
        self._plain = _plain_config(datasette)

    @property
    def config(self) -> ServeConfig:
        """Return what the server was built with, else the plugin's configuration."""
        return self._config or self._plain

    def configure(self, config: ServeConfig, writer: Any, peers: Peers) -> None:
        """Take the settings of `mirror serve`, which outweigh the plugin's; raises ConfigError."""
        self._config, self.writer, self.peers = config, writer, peers
        self.check()

    def check(self) -> None:
        """Raise ConfigError where `trust_basic_user` is set and nothing tells whose a connection is."""
        if self.config.trust_basic_user and not self.peers.are_listed():
            raise ConfigError(
                "trust_basic_user needs to know which user of this machine a connection is from, which only "
                "Linux tells, in /proc/net/tcp; remove the setting and make a token: mirror token create NAME"
            )

    def is_mirror(self, database: "Database") -> bool:
        """Tell whether a database is a mirror; asked of the file once."""
        if database not in self._known:
            self._known[database] = bool(database.path) and _is_mirror(Path(database.path))
        return self._known[database]


_served = WeakKeyDictionary["Datasette", Served]()


def served(datasette: "Datasette") -> Served:
    """Return what is known about a Datasette."""
    if datasette not in _served:
        _served[datasette] = Served(datasette)
    return _served[datasette]


def mirrors(datasette: "Datasette") -> "Iterator[Database]":
    """Yield the attached mirrors in the order they were named."""
    known = served(datasette)
    yield from (database for database in datasette.databases.values() if known.is_mirror(database))


def mirror_named(datasette: "Datasette", name: str) -> "Database | None":
    """Return the mirror of that name, or None where there is another database or nothing."""
    database = datasette.databases.get(name)
    return database if database is not None and served(datasette).is_mirror(database) else None


def _is_mirror(path: Path) -> bool:
    """Ask SQLite, not the file's header: in WAL mode the number may not have reached the header yet."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)
    except sqlite3.DatabaseError:
        return False


def _plain_config(datasette: "Datasette") -> ServeConfig:
    """Read the plugin configuration, for `datasette FILE`; raises StartupError that names the key."""
    # The local metadata alone: plugin_config() would ask every plugin, this one again included.
    plugins = (datasette._metadata_local or {}).get("plugins") or {}  # noqa: SLF001
    try:
        return msgspec.convert(plugins.get(PLUGIN) or {}, ServeConfig)
    except msgspec.ValidationError as error:
        raise StartupError(f"plugin configuration {PLUGIN!r}: {error}") from error
