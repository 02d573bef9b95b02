"""`mirror serve`, `mirror schedule`, `mirror run`: the commands that run until they are stopped."""

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click
import msgspec
from datasette.app import Datasette

from mirror.background.service import Background
from mirror.cli.bars import TerminalProgress
from mirror.cli.main import configured, errors
from mirror.config import Config
from mirror.config_checks import warn_of_open_files
from mirror.credentials import read_secret
from mirror.errors import ConfigError
from mirror.observe.logs import Logged, secrets_of, set_up
from mirror.operations import built_in_sandbox
from mirror.report import Reporter
from mirror.serve.server import build
from mirror.serve.server import serve as answer
from mirror.serve.state import served
from mirror.serve.webhook_writer import Hook
from mirror.serve.webhooks import accept
from mirror.store import Store
from mirror.store.files import is_snapshot, refuse_snapshot
from mirror.store.ledger import told_limits
from mirror.store.lock import server_mark
from mirror.upstream.accounts import accounts_by_upstream
from mirror.write import PassThrough

LONGEST_END = 2.2
"""Seconds from a signal to the end of the process; the documentation promises three."""

host_option = click.option(
    "--host",
    metavar="HOST",
    help="The address to listen on. Default: that of the configuration, else 127.0.0.1.",
)
port_option = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The port to listen on; 0: any free one. Default: that of the configuration, else 8001.",
)
public_option = click.option("--public", is_flag=True, help="Listen on all addresses of this machine, IPv4.")


@click.command()
@host_option
@port_option
@public_option
@click.pass_context
def serve(ctx: click.Context, host: str | None, port: int | None, public: bool) -> None:
    """Serve the mirror: pages, tables, SQL and APIs.

    \b
    Example:
        mirror serve --port 8080
    """
    config = with_address(configured(ctx), host, port, public)
    datasette = application(config)
    database = Path(config.database)
    if not is_snapshot(database):  # which is for everybody
        warn_of_open_files(config)
    stop = threading.Event()
    end_soon_after(stop)
    # A server of copies lets go of the file by itself when another one takes its place.
    with nullcontext() if config.serve.read_only else server_mark(database, config.mode):
        answer(datasette, config.serve.host, config.serve.port, ready=announce, stop=stop)


@click.command()
@click.pass_context
def schedule(ctx: click.Context) -> None:
    """Sync by the schedules of the configuration, until Ctrl-C.

    It serves nothing, and is what `python scheduler.py` starts.

    \b
    Example:
        mirror schedule
    """
    config = configured(ctx)
    refuse_snapshot(Path(config.database))
    log_as(config)
    warn_of_open_files(config)
    with built_in_sandbox(config):
        background = Background(config, report=Logged(), reread=lambda: configured(ctx), adopt=log_as)
        end_soon_after(background.stop)
        leave_now_unless(background.run())


@click.command()
@host_option
@port_option
@public_option
@click.pass_context
def run(ctx: click.Context, host: str | None, port: int | None, public: bool) -> None:
    """Sync by schedule and serve, in one process.

    \b
    Example:
        mirror run --port 8001
    """
    config = with_address(configured(ctx), host, port, public)
    if config.serve.read_only:
        raise ConfigError("[serve] read_only = true is for `mirror serve`: `mirror run` syncs into the file")
    Store(Path(config.database), config.mode).close()  # so that there is a file to serve before a first sync
    datasette = application(config)
    warn_of_open_files(config)
    stop = threading.Event()
    end_soon_after(stop)
    with built_in_sandbox(config, lively=True), watching(config) as reporter:
        background = Background(
            config,
            report=reporter,
            stop=stop,
            reread=lambda: with_address(configured(ctx), host, port, public),
            adopt=lambda new: arrange(datasette, new),
        )

        def ready(address: str) -> None:
            announce(address)
            background.start()

        try:
            with background.signals(ends=False):
                answer(datasette, config.serve.host, config.serve.port, ready=ready, stop=stop)
        finally:
            idle = background.end()
    leave_now_unless(idle)


def application(config: Config) -> Datasette:
    """Make what is served; with writes allowed, they pass through to the upstreams."""
    writer = PassThrough(config) if config.serve.writes else None
    datasette = build(Path(config.database), config.serve, writer=writer)
    arrange(datasette, config)
    return datasette


def arrange(datasette: Datasette, config: Config) -> None:
    """Tell a server what of a configuration may change while it runs: webhooks, limits, thresholds, logs.

    Raises ConfigError before anything is changed.
    """
    hooks = {} if config.serve.read_only else webhooks_of(config)
    log_as(config)
    if not config.serve.read_only:
        accept(datasette, hooks)
    known = served(datasette)
    known.limits = lambda connection: accounts_by_upstream(config, told_limits(connection))
    known.stale_after = {upstream.name: upstream.stale_after for upstream in config.upstreams}


def webhooks_of(config: Config) -> dict[str, Hook]:
    """Read the secrets of the webhooks that are configured; raises ConfigError."""
    return {
        upstream.name: Hook(read_secret(upstream.webhook_secret), datacenter=upstream.kind == "datacenter")
        for upstream in config.upstreams
        if upstream.webhook_secret is not None
    }


def log_as(config: Config) -> None:
    """Log as a configuration says; raises ConfigError for a secret that cannot be read."""
    set_up(config.log, secrets_of(config))


@contextmanager
def watching(config: Config) -> Iterator[Reporter]:
    """Log what a run does, and show its progress on a terminal, if there is one."""
    if config.log.format == "json" or not sys.stderr.isatty():
        yield Logged()
        return
    with TerminalProgress(errors()) as bars:
        yield Logged(bars)


def end_soon_after(stop: threading.Event) -> None:
    """End the process within `LONGEST_END` seconds of `stop`, whatever its threads are doing then.

    Otherwise a query that SQLite cannot interrupt, or a missing answer, would delay the end.
    """

    def watch() -> None:
        stop.wait()
        # Answers that are cut off may leave coroutines of Datasette that were never awaited.
        warnings.simplefilter("ignore", RuntimeWarning)
        time.sleep(LONGEST_END)
        leave_now_unless(idle=False)

    threading.Thread(target=watch, daemon=True, name="end").start()


def leave_now_unless(idle: bool) -> None:
    """End the process although some work did not end in time; what it has saved is consistent."""
    if idle:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the interpreter would wait for the thread


def announce(address: str) -> None:
    """Say where the mirror answers."""
    click.echo(f"the mirror answers on {address}  (Ctrl-C stops it)")


def with_address(config: Config, host: str | None, port: int | None, public: bool) -> Config:
    """Override the configured address by that of the command line."""
    address = {
        "host": "0.0.0.0" if public else host or config.serve.host,  # noqa: S104 - asked for by --public
        "port": config.serve.port if port is None else port,
    }
    return msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, **address))
