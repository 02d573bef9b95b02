"""What one Datasette serves, and all that this program remembers of it while it runs.

Settings come from `mirror.serve.server.build`, or, under plain `datasette`, from the plugin configuration
``bitbucket-mirror``.
"""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from datasette.utils import StartupError

from mirror.config import ServeConfig
from mirror.errors import ConfigError
from mirror.observe.metrics import FileMetrics, Latencies, Limits
from mirror.serve.pages.counts import CountCache
from mirror.serve.socket_owner import Peers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from datasette.app import Datasette

    from mirror.serve.webhook_writer import Hook, WebhookWriter

PLUGIN = "bitbucket-mirror"
WEBHOOK_SECONDS = 1.0
"""How long the sender of a webhook waits for a busy file before the delivery is kept on the disk."""


class Served:
    """The state of one Datasette.

    `writer` passes writes to the upstreams, None where there is none. `described_databases` are the
    databases that `metadata` describes. `use_saved_at` maps a mirror's name and a token's id to the
    monotonic time at which the use of the token was last saved. `limits` reads the accounts of the
    upstreams from the request ledger. `stale_after` maps an upstream to the seconds after which its last
    complete sync is too old. `hooks` maps an upstream to what its webhooks are verified with.
    """

    def __init__(self, datasette: "Datasette") -> None:
        self.config = _plain_config(datasette)
        self.writer: Any = None
        self.peers = Peers()
        self.metadata: dict[str, Any] | None = None
        self.described_databases: object = None
        self.use_saved_at = dict[tuple[str, int], float]()
        self.counts = CountCache()
        self.latencies = Latencies()
        self.file_metrics = FileMetrics()
        self.limits: Callable[[sqlite3.Connection], Limits] = lambda _: {}
        self.stale_after: Mapping[str, float] = {}
        self.hooks: Mapping[str, Hook] = {}
        self.webhook_writer: WebhookWriter | None = None
        self.webhook_seconds = WEBHOOK_SECONDS

    def configure(self, config: ServeConfig, writer: Any, peers: Peers) -> None:
        """Take the settings of `mirror serve`, which outweigh the plugin's; raises ConfigError."""
        self.config, self.writer, self.peers = config, writer, peers
        self.check()

    def check(self) -> None:
        """Raise ConfigError where `trust_basic_user` is set and the system does not list socket owners."""
        if self.config.trust_basic_user and not self.peers.are_listed():
            raise ConfigError(
                "trust_basic_user needs to know which user of this machine a connection is from, which only "
                "Linux tells, in /proc/net/tcp; remove the setting and make a token: mirror token create NAME"
            )


_served = WeakKeyDictionary["Datasette", Served]()


def served(datasette: "Datasette") -> Served:
    """Return the state of a Datasette; code with a request takes it from there (`mirror.serve.exchange`)."""
    if datasette not in _served:
        _served[datasette] = Served(datasette)
    return _served[datasette]


def _plain_config(datasette: "Datasette") -> ServeConfig:
    """Read the plugin configuration, for `datasette FILE`; raises StartupError that names the key."""
    # The local metadata alone: plugin_config() would ask every plugin, this one again included.
    plugins = (datasette._metadata_local or {}).get("plugins") or {}  # noqa: SLF001
    try:
        return msgspec.convert(plugins.get(PLUGIN) or {}, ServeConfig)
    except msgspec.ValidationError as error:
        raise StartupError(f"plugin configuration {PLUGIN!r}: {error}") from error
