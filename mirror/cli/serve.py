"""`mirror serve`, and what it shares with `mirror run`: options, the server, the end of a process."""

import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import click
import msgspec
from datasette.app import Datasette

from mirror.cli.main import configured, exit_code_of, leave
from mirror.config import MOST_WORKERS, Config
from mirror.config_checks import warn_of_open_files
from mirror.credentials import read_secret
from mirror.errors import ConfigError
from mirror.observe.logs import secrets_of, set_up
from mirror.serve.server import Listener, answer, build, listening
from mirror.serve.state import served
from mirror.serve.webhooks import Hook, accept
from mirror.serve.workers import Ready, Task, Workers
from mirror.store.files import is_snapshot
from mirror.store.ledger import reported_limits
from mirror.store.lock import server_mark
from mirror.upstream.endpoint import accounts_by_upstream
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
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    metavar="N",
    help="How many processes answer, one for each core. Default: that of the configuration, else 1.",
)


def serve_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that override `[serve]`, all of which `with_options` takes."""
    return host_option(port_option(public_option(workers_option(command))))


@click.command()
@serve_options
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Serve the mirror: pages, tables, SQL and APIs.

    \b
    Example:
        mirror serve --port 8080
        mirror serve --workers 4
    """
    config = with_options(configured(ctx), **options)
    datasette = application(config)
    database = Path(config.database)
    if not is_snapshot(database):  # it is public
        warn_of_open_files(config)
    # A server of copies releases the file when another copy replaces it.
    mark = nullcontext() if config.serve.read_only else server_mark(database, config.mode)
    with mark, listening(config.serve.host, config.serve.port) as listener:
        if config.serve.workers > 1:
            tasks = answering(datasette, listener, lambda: config)
            leave(Workers(tasks, ready=lambda: announce(listener.address)).run())
        stop = threading.Event()
        end_soon_after(stop)
        arrange(datasette, config)
        answer(datasette, listener, ready=announce, stop=stop)


def answering(
    datasette: Datasette,
    listener: Listener,
    config: Callable[[], Config],
    reread: Callable[[], Config] | None = None,
) -> list[Task]:
    """Return a task for each process that answers; it starts with the configuration that `config` returns.

    On SIGHUP, they adopt the changeable part of the configuration from `reread`; `Background` reports errors.
    """

    def task(number: int) -> Task:
        def work(stop: threading.Event, ready: Ready) -> None:
            end_soon_after(stop)
            served(datasette).latencies.count_in(number)
            arrange(datasette, config())
            if reread is not None:
                adopt_on_hangup(lambda: arrange(datasette, reread()))
            answer(datasette, listener, ready=lambda _: ready(), stop=stop, signals=())

        return Task(f"worker {number + 1}", lambda stop, ready: exit_code_of(lambda: work(stop, ready)))

    return [task(number) for number in range(config().serve.workers)]


def adopt_on_hangup(adopt: Callable[[], None]) -> None:
    """Call a function in a thread on each SIGHUP; it may raise ConfigError."""
    asked = queue.SimpleQueue[int]()
    signal.signal(signal.SIGHUP, lambda number, _: asked.put(number))

    def obey() -> None:
        while asked.get():
            with suppress(ConfigError):
                adopt()

    threading.Thread(target=obey, daemon=True, name="reread").start()


def application(config: Config) -> Datasette:
    """Build the server; if writes are allowed, they pass through to the upstreams.

    Raises what `build` raises, and ConfigError for a secret that cannot be read. Starts no thread.
    """
    writer = PassThrough(config) if config.serve.writes else None
    datasette = build(Path(config.database), config.serve, writer=writer)
    webhooks_of(config)
    log_as(config)
    return datasette


def arrange(datasette: Datasette, config: Config) -> None:
    """Set the parts of a server that may change while it runs: webhooks, limits, thresholds, logs.

    Raises ConfigError before anything is changed.
    """
    hooks = {} if config.serve.read_only else webhooks_of(config)
    log_as(config)
    if not config.serve.read_only:
        accept(datasette, hooks)
    known = served(datasette)
    known.limits = lambda connection: accounts_by_upstream(config, reported_limits(connection))
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


def end_soon_after(stop: threading.Event) -> None:
    """End the process within `LONGEST_END` seconds after `stop`, regardless of its threads.

    A query that SQLite cannot interrupt, or a missing answer, would otherwise delay the end.
    """

    def watch() -> None:
        stop.wait()
        # Answers that are cut off may leave coroutines of Datasette that were never awaited.
        warnings.simplefilter("ignore", RuntimeWarning)
        time.sleep(LONGEST_END)
        leave_now_unless(idle=False)

    threading.Thread(target=watch, daemon=True, name="end").start()


def leave_now_unless(idle: bool) -> None:
    """End the process unless all work has ended (`idle`); saved data is consistent."""
    if idle:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the interpreter would wait for the thread


def announce(address: str) -> None:
    """Say where the mirror answers."""
    click.echo(f"the mirror answers on {address}  (Ctrl-C stops it)")


def with_options(
    config: Config, *, host: str | None, port: int | None, public: bool, workers: int | None
) -> Config:
    """Override the configuration of the server by the options of the command line."""
    told = {
        "host": "0.0.0.0" if public else host or config.serve.host,  # noqa: S104 - asked for by --public
        "port": config.serve.port if port is None else port,
        "workers": workers or config.serve.workers,
    }
    return msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, **told))
