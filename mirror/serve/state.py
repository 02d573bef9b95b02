"""Which of the attached databases are mirrors, and what this server was told about them.

`mirror.serve.database` tells a mirror from other databases, which are left alone. Settings come from
`mirror.serve.server.build`, or, under plain `datasette`, from the plugin configuration ``bitbucket-mirror``.
"""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from datasette.utils import StartupError

from mirror.config import ServeConfig
from mirror.errors import ConfigError
from mirror.serve.database import GuardedDatabase, guard
from mirror.serve.socket_owner import Peers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasette.app import Datasette

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


_served = WeakKeyDictionary["Datasette", Served]()


def served(datasette: "Datasette") -> Served:
    """Return what is known about a Datasette."""
    if datasette not in _served:
        _served[datasette] = Served(datasette)
    return _served[datasette]


def mirrors(datasette: "Datasette") -> "Iterator[GuardedDatabase]":
    """Yield the attached mirrors in the order they were named."""
    guard(datasette)
    for database in datasette.databases.values():
        if isinstance(database, GuardedDatabase) and database.is_mirror():
            yield database


def mirror_named(datasette: "Datasette", name: str) -> "GuardedDatabase | None":
    """Return the mirror of that name, or None where there is another database or nothing."""
    guard(datasette)
    database = datasette.databases.get(name)
    return database if isinstance(database, GuardedDatabase) and database.is_mirror() else None


def _plain_config(datasette: "Datasette") -> ServeConfig:
    """Read the plugin configuration, for `datasette FILE`; raises StartupError that names the key."""
    # The local metadata alone: plugin_config() would ask every plugin, this one again included.
    plugins = (datasette._metadata_local or {}).get("plugins") or {}  # noqa: SLF001
    try:
        return msgspec.convert(plugins.get(PLUGIN) or {}, ServeConfig)
    except msgspec.ValidationError as error:
        raise StartupError(f"plugin configuration {PLUGIN!r}: {error}") from error
