"""The state of a running server: its settings, its counters, its caches, its published file."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec
from datasette.database import Database
from datasette.utils import StartupError

from mirror.config import ServeConfig
from mirror.config_checks import sources_of
from mirror.errors import ConfigError, StoreError
from mirror.observe.metrics import FileMetrics, Latencies, Limits
from mirror.serve.connections import Peers
from mirror.serve.guarded_database import GuardedDatabase, guard
from mirror.serve.quick_reads import QuickReads
from mirror.store.files import open_reader, snapshot_moment

if TYPE_CHECKING:
    from datasette.app import Datasette

    from mirror.serve.webhook_writer import WebhookWriter
    from mirror.serve.webhooks import Hook

PLUGIN = "bitbucket-mirror"
VALID_TIMES = 60  # a count stays valid for this many times the time it took
CHEAP_SECONDS = 0.05  # a count that took less than this is repeated for each page
LONGEST_SECONDS = 600.0  # the longest time for which a count stays valid
WAIT_SECONDS = 0.15  # how long a page waits for a number that was never counted before
WEBHOOK_SECONDS = 1.0  # how long a webhook waits for a busy file before the delivery is kept on the disk

log = logging.getLogger(__name__)


class _Counted(msgspec.Struct, frozen=True):
    """A number, how many seconds counting took, and until when (monotonic clock) it is valid."""

    value: Any
    seconds: float
    until: float


class CountCache:
    """Numbers that need a scan of the file, cached for a time in proportion to its cost.

    In a small file they are counted for each page. If counting takes a second, the number is valid for a
    minute. After that, pages show the old number while it is counted again.

    :ivar wait: how many seconds a page waits for a number that was never counted before.
    """

    def __init__(self) -> None:
        self.wait = WAIT_SECONDS
        self._known = dict[Any, _Counted]()
        self._running = dict[Any, asyncio.Task[Any]]()

    async def get(self, key: Any, count: Callable[[], Awaitable[Any]], *, wait: float | None = None) -> Any:
        """Return a number, perhaps an old one; None if it is still unknown after `wait` or the usual time."""
        known = self._known.get(key)
        if known is not None and known.until > time.monotonic():
            return known.value
        task = self._running.get(key)
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._running[key] = asyncio.create_task(self._count(key, count))
        if known is not None and known.seconds > CHEAP_SECONDS:
            return known.value
        done, _ = await asyncio.wait({task}, timeout=self.wait if wait is None else wait)
        if done:
            return task.result()
        return known.value if known else None

    async def _count(self, key: Any, count: Callable[[], Awaitable[Any]]) -> Any:
        start, known = time.monotonic(), self._known.get(key)
        try:
            value = await count()
        except sqlite3.Error as error:
            log.warning("%s could not be counted: %s", key[-1], error)
            value = known.value if known else None
        finally:
            self._running.pop(key, None)
        seconds = time.monotonic() - start  # a count that failed or took too long is not repeated at once
        valid = min(VALID_TIMES * seconds, LONGEST_SECONDS) if seconds > CHEAP_SECONDS else 0.0
        self._known[key] = _Counted(value, seconds, time.monotonic() + valid)
        return value


class PublicSnapshot:
    """A published file beside the mirror: everybody may read it by SQL, whatever the mirror holds.

    It is a database of its own. If it is replaced, the next request reads the new one.

    :ivar name: the name of its database; None until it is attached.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refused: object = None
        self.name: str | None = None

    def attach(self, datasette: "Datasette") -> None:
        """Attach the file if it exists and is a published one; log any other once."""
        # `mirror publish` may make it while the server runs.
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
        """Say why the file is not attached; "" if it can be."""
        try:
            with closing(open_reader(self._path)) as connection:
                if snapshot_moment(connection) is not None:
                    return ""
        except (StoreError, sqlite3.Error) as error:
            return str(error)
        return f"{self._path}: not a published file; make one: mirror publish {self._path} --force"


class Served:
    """The state of one Datasette.

    - `writer` passes writes to the upstreams, if `config.writes` allows them.
    - `described_databases`: what `metadata` describes: the databases, and the sizes of their files.
    - `use_saved_at` maps (mirror, token id) to the monotonic time at which the token's use was last saved.
    - `limits` reads the budgets of the upstreams from the request ledger.
    - `stale_after` maps an upstream to the age, in seconds, at which its last complete sync is too old.
    - `hooks` maps an upstream to the secret of its webhooks.
    - `snapshot` is the published file beside the mirror; None if none is configured.
    """

    def __init__(self, datasette: "Datasette") -> None:
        self.config = _plain_config(datasette)  # `mirror serve` overrides it by `configure`
        self.writer: Any = None
        self.peers = Peers()
        self.metadata = dict[str, Any]()
        self.described_databases: object = None
        self.use_saved_at = dict[tuple[str, int], float]()
        self.counts = CountCache()
        self.quick_reads = QuickReads()
        self.latencies = Latencies()
        self.file_metrics = FileMetrics()
        self.limits: Callable[[sqlite3.Connection], Limits] = lambda _: {}
        self.stale_after: Mapping[str, float] = {}
        self.hooks: Mapping[str, Hook] = {}
        self.webhook_writer: WebhookWriter | None = None
        self.webhook_seconds = WEBHOOK_SECONDS
        self.snapshot: PublicSnapshot | None = None

    def configure(self, config: ServeConfig, writer: Any, peers: Peers) -> None:
        """Take the settings of `mirror serve`, which override the plugin's; raises ConfigError."""
        self.config, self.writer, self.peers = config, writer, peers
        self.check()

    def check(self) -> None:
        """Raise ConfigError if `trust_basic_user` is set on a system that does not list who owns sockets."""
        if self.config.trust_basic_user and not self.peers.are_listed():
            raise ConfigError(
                "trust_basic_user needs to know which user of this machine opened a connection; only Linux "
                "lists that, in /proc/net/tcp; remove the setting and make a token: mirror token create NAME"
            )


_served = WeakKeyDictionary["Datasette", Served]()


def served(datasette: "Datasette") -> Served:
    """Return the state of a Datasette. Code that has a request uses `mirror.serve.exchange.served_of`."""
    if datasette not in _served:
        _served[datasette] = Served(datasette)
    return _served[datasette]


def _plain_config(datasette: "Datasette") -> ServeConfig:
    """Read the plugin configuration, for `datasette FILE`; raises StartupError that names the key."""
    # Only the local metadata: plugin_config() would call every plugin, including this one again.
    plugins = (datasette._metadata_local or {}).get("plugins") or {}  # noqa: SLF001
    try:
        config = msgspec.convert(plugins.get(PLUGIN) or {}, ServeConfig)
        sources_of(config.csp)
    except ValueError as error:  # msgspec raises these too
        raise StartupError(f"plugin configuration {PLUGIN!r}: {error}") from error
    return config
