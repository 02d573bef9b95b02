"""The web server of `mirror serve` and `mirror run`: Datasette on uvicorn."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from urllib.parse import urljoin

import uvicorn
from datasette.app import Datasette
from datasette.utils.asgi import Request

from mirror.config import ServeConfig
from mirror.errors import ConfigError, MirrorError
from mirror.observe.metrics import Latencies
from mirror.serve.connections import (
    ACCEPTED_AT_ONCE,
    OncePerMinute,
    Peers,
    accept_errors,
    bounded_protocol,
    is_loopback,
    most_connections,
)
from mirror.serve.pages.templates import prepare_first_page
from mirror.serve.state import PublicSnapshot, served
from mirror.serve.urls import base_of, origin_of, outer
from mirror.serve.workers import set_by_signals
from mirror.store.files import open_reader

SETTINGS = {
    "facet_time_limit_ms": 1000,
    "suggest_facets": False,  # 30 columns at 50 ms each would take longer than the rest of the page
    "sql_time_limit_ms": 3000,
    "num_sql_threads": 4,
    "max_returned_rows": 1000,
    "default_cache_ttl": 0,  # a sync may be writing
}
# For how long a connection is kept between two requests: longer than nginx (60 s), Go's client (90 s) and
# Caddy (120 s) keep it, or they may send a POST into one that closes. If too many are open, it closes sooner.
KEPT_SECONDS = 130
DRAIN_SECONDS = 1  # for how long running answers may go on at the end
BACKLOG = 512  # connections that wait in the kernel

log = logging.getLogger("uvicorn.error")
_REPEATS = OncePerMinute()


def build(
    database: Path,
    config: ServeConfig,
    *,
    writer: Any = None,
    peers: Peers | None = None,
) -> Datasette:
    """Make the application that serves an existing mirror.

    :param writer: a `mirror.serve.writer.Writer`, for writes if `config.writes` allows them.
    :param peers: finds the owner of a connection; by default it asks the kernel.

    Raises StoreError for a file that is not a mirror, or too old or new; ConfigError for settings that
    contradict each other.
    """
    if config.trust_basic_user and not is_loopback(config.host):
        raise ConfigError(
            "trust_basic_user accepts any user name without a password, so it is for loopback only, "
            f"not for {config.host}"
        )
    open_reader(database).close()
    datasette = PublishedDatasette(
        [str(database)],
        settings=SETTINGS | {"base_url": base_of(config.public_url)},
        metadata={"title": "Bitbucket mirror"},
        secret=os.environ.get("DATASETTE_SECRET"),  # it signs logins; without it, they end with the process
    )
    datasette.public_origin = origin_of(config.public_url)
    server = served(datasette)
    server.configure(config, writer, peers or Peers())
    server.latencies = Latencies(config.workers)
    if config.public_snapshot:
        server.snapshot = PublicSnapshot(Path(config.public_snapshot))
    return datasette


class PublishedDatasette(Datasette):  # type: ignore[misc]
    """A Datasette whose absolute links use the configured address, regardless of a proxy's Host header."""

    public_origin = ""

    def absolute_url(self, request: Request, path: str) -> str:
        """Make a path absolute."""
        if self.public_origin:
            return urljoin(f"{self.public_origin}/", outer(self, path))
        return str(super().absolute_url(request, path))


class Listener(NamedTuple):
    """An open port, which several processes may answer on, and its address."""

    socket: socket.socket
    address: str


def answer(
    datasette: Datasette,
    listener: Listener,
    *,
    ready: Callable[[str], None],
    stop: threading.Event,
    signals: Collection[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> signal.Signals | None:
    """Answer requests until a signal or `stop`; return the signal, or None.

    :param ready: called with the address once requests are answered.
    :param stop: ends the server when it is set. A signal sets it too.
    :param signals: the signals that end the server, if it runs in the main thread. A second one does not wait
        for running answers.

    At the end, idle connections are closed at once, and running answers get one second. Raises MirrorError.
    """
    config = uvicorn.Config(
        datasette.app(),
        http=bounded_protocol(most_connections()),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEPT_SECONDS,
        # A process that accepts many at once leaves the others idle.
        backlog=1 if served(datasette).config.workers > 1 else ACCEPTED_AT_ONCE,
        ws="none",
    )
    log.setLevel(logging.WARNING)
    log.addFilter(_REPEATS)

    def begin() -> None:
        prepare_first_page(datasette.jinja_env)
        ready(listener.address)

    server = _WebServer(config, stop, begin)
    with _signals(server, stop, signals) as caught:
        try:
            server.run(sockets=[listener.socket])
        except SystemExit:
            raise MirrorError(f"the server could not start on {listener.address}; its log says why") from None
    return caught[0] if caught else None


def close(datasette: Datasette) -> None:
    """Close the files of an application that answers no more, when its last reads have ended."""
    if datasette.executor is not None:
        datasette.executor.shutdown(cancel_futures=True)
    for database in datasette.databases.values():
        database.close()


class _WebServer(uvicorn.Server):
    """A server that handles no signals and watches an event."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(accept_errors)
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # more may wait in the kernel than asyncio accepts at once
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Answers are cut off on purpose now, so no tracebacks are logged.
        log.setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stop.is_set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(
    server: _WebServer, stop: threading.Event, handled: Collection[signal.Signals]
) -> Iterator[list[signal.Signals]]:
    """Handle signals in the main thread; the second one does not wait for running answers."""
    caught = list[signal.Signals]()

    def handle(number: int, _: FrameType | None) -> None:
        server.force_exit = bool(caught)
        caught.append(signal.Signals(number))
        set_stop()

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    set_stop = set_by_signals(stop) if handled else stop.set
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[Listener]:
    """Open a port (0: any free one) and close it at the end; raises MirrorError with the remedy."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio disables Nagle's algorithm (a delay of 40 ms) only on sockets with an explicit protocol.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of a name is too long
        reason = getattr(error, "strerror", None) or error
        raise MirrorError(f"{host}: {reason}; `host` must be an address of this machine") from error
    with contextlib.closing(listener):
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(BACKLOG)
        except OSError as error:
            remedy = "another program may use the port: choose another with --port"
            if error.errno == errno.EADDRNOTAVAIL:
                remedy = "`host` must be an address of this machine"
            raise MirrorError(
                f"{_address(host, port)} cannot be served: {error.strerror}; {remedy}"
            ) from error
        yield Listener(listener, _address(host, listener.getsockname()[1]))


def _address(host: str, port: int) -> str:
    """Return the address to open in a browser."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
