"""`mirror serve`, `mirror schedule`, `mirror run`: serve, sync by schedule, or both, until Ctrl-C."""

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mirror.background.rereading import Current, check_same_mirror, on_hangup
from mirror.cli.common import (
    announce,
    configuration_reader,
    configured,
    errors,
    leave,
    number_option,
    options,
)
from mirror.cli.main import exit_code_of
from mirror.config import MOST_WORKERS, Config
from mirror.config_checks import warn
from mirror.credentials import read_secret
from mirror.errors import ConfigError
from mirror.observe.logs import Logged, secrets_of, set_up
from mirror.serve.server import Listener, answer, build, close, listening
from mirror.serve.state import served
from mirror.serve.webhooks import Hook, accept
from mirror.serve.workers import Ready, Task, Workers
from mirror.store.files import fold_journal, is_snapshot
from mirror.store.ledger import reported_limits
from mirror.store.lock import server_mark
from mirror.upstream.connect import accounts_by_upstream
from mirror.write import PassThrough

if TYPE_CHECKING:
    from datasette.app import Datasette

    from mirror.report import Reporter

LONGEST_END = 2.2
"""Seconds from a signal to the end of the process; the documentation promises three."""

serve_options = options(
    click.option(
        "--host",
        metavar="HOST",
        help="The address to listen on. Default: that of the configuration, else 127.0.0.1.",
    ),
    number_option(
        "--port",
        "The port to listen on; 0: any free one. Default: that of the configuration, else 8001.",
        most=65535,
        metavar="PORT",
    ),
    click.option("--public", is_flag=True, help="Listen on all addresses of this machine, IPv4."),
    number_option(
        "--workers",
        "How many processes answer, one for each core. Default: that of the configuration, else 1.",
        least=1,
        most=MOST_WORKERS,
    ),
)
"""The options that override `[serve]`, all of which `with_options` takes."""


@click.command()
@serve_options
def serve(**given: Any) -> None:
    """Serve the mirror: pages, tables, SQL and APIs.

    \b
    Examples:
        mirror serve --port 8080
        mirror serve --workers 4
    """
    current = current_of(given, check_same_mirror)
    config = current.config
    datasette = application(config)
    database = Path(config.database)
    if not is_snapshot(database):  # it is public
        warn(config)
    # A server of copies releases the file when another copy replaces it.
    mark = nullcontext() if config.serve.read_only else server_mark(database, config.mode)
    with mark, listening(config.serve.host, config.serve.port) as listener:
        if config.serve.workers > 1:
            code = Workers(
                answering(datasette, listener, current),
                ready=lambda: tell_address(listener.address),
                reread=lambda: current.renew_and_tell(Logged()),
            ).run()
            tidy(config)
            leave(code)

        def obey() -> None:
            current.renew_and_tell(Logged())
            arrange(datasette, current.config)

        stop = threading.Event()
        end_soon_after(stop)
        arrange(datasette, config)
        on_hangup(obey)
        answer(datasette, listener, ready=tell_address, stop=stop)
        close(datasette)
        tidy(config)


def current_of(given: dict[str, Any], check: Callable[[Config, Config], object]) -> Current:
    """Read the configuration of a server, whose options are `given`; raises ConfigError."""
    read = configuration_reader()

    def reread() -> Config:
        return with_options(read(), **given)

    def check_webhooks_too(new: Config, before: Config) -> None:
        check(new, before)
        webhooks_of(new)  # a secret that cannot be read is refused by all processes, and reported by one

    return Current(reread(), reread, check_webhooks_too)


def answering(datasette: "Datasette", listener: Listener, current: Current) -> list[Task]:
    """Return a task for each process that answers; on SIGHUP, it adopts what may change while it runs."""

    def task(number: int) -> Task:
        def work(stop: threading.Event, ready: Ready) -> None:
            end_soon_after(stop)
            served(datasette).latencies.count_in(number)
            arrange(datasette, current.config)
            on_hangup(lambda: arrange(datasette, current.renew()))
            answer(datasette, listener, ready=lambda _: ready(), stop=stop, signals=())

        return Task(f"worker {number + 1}", lambda stop, ready: exit_code_of(lambda: work(stop, ready)))

    return [task(number) for number in range(current.config.serve.workers)]


def application(config: Config) -> "Datasette":
    """Build the server.

    Raises what `build` raises, and ConfigError for a secret that cannot be read. Starts no thread.
    """
    datasette = build(Path(config.database), config.serve)
    webhooks_of(config)
    log_as(config)
    return datasette


def arrange(datasette: "Datasette", config: Config) -> None:
    """Set the parts of a server that may change while it runs: webhooks, writes, limits, thresholds, logs.

    Raises ConfigError before anything is changed.
    """
    hooks = {} if config.serve.read_only else webhooks_of(config)
    log_as(config)
    if not config.serve.read_only:
        accept(datasette, hooks)
    known = served(datasette)
    known.writer = PassThrough(config)
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
    """End the process within `LONGEST_END` seconds after `stop`, regardless of its threads."""

    # A query that SQLite cannot interrupt, or an upstream that does not answer, would delay the end.
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


def tidy(config: Config) -> None:
    """Leave no journal beside the mirror: some copy the file of a stopped service alone."""
    if not config.serve.read_only:
        fold_journal(Path(config.database))


def tell_address(address: str) -> None:
    """Say where the mirror answers."""
    announce(f"the mirror answers on {address}  (Ctrl-C stops it)")


def with_options(
    config: Config, *, host: str | None, port: int | None, public: bool, workers: int | None
) -> Config:
    """Override the configuration of the server by options of the command line; raises ConfigError."""
    if public and host:
        raise ConfigError("--host and --public exclude each other; choose one")
    told = {
        "host": "0.0.0.0" if public else host or config.serve.host,  # noqa: S104 - asked for by --public
        "port": config.serve.port if port is None else port,
        "workers": workers or config.serve.workers,
    }
    return msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, **told))


def make_usable(config: Config) -> None:
    """Make the mirror file, or bring it up to date; raises StoreError if no job could write to it."""
    from mirror.store import Store  # noqa: PLC0415 - `mirror serve` opens the file another way

    Store(Path(config.database), config.mode).close()


@click.command()
def schedule() -> None:
    """Sync by the schedules of the configuration, until Ctrl-C.

    It serves nothing, and is what `python scheduler.py` starts.

    \b
    Example:
        mirror schedule
    """
    # Slow to import, and `mirror serve` needs neither the scheduler nor an upstream.
    from mirror.background.service import Background  # noqa: PLC0415
    from mirror.operations import built_in_sandbox  # noqa: PLC0415

    config = configured()
    make_usable(config)
    log_as(config)
    warn(config)
    with built_in_sandbox(config):
        background = Background(config, report=Logged(), reread=configuration_reader(), adopt=log_as)
        end_soon_after(background.stop)
        leave_now_unless(background.run())


@click.command()
@serve_options
def run(**given: Any) -> None:
    """Sync by schedule and serve, in one process or in several.

    \b
    Example:
        mirror run --port 8001
    """
    from mirror.background.service import acceptable  # noqa: PLC0415 - as in `schedule`

    current = current_of(given, acceptable)
    config = current.config
    if config.serve.read_only:
        raise ConfigError("[serve] read_only = true is for `mirror serve`: `mirror run` syncs into the file")
    make_usable(config)
    datasette = application(config)
    warn(config)
    with listening(config.serve.host, config.serve.port) as listener:
        if config.serve.workers > 1:
            code = run_in_processes(datasette, listener, current)
            tidy(config)
            leave(code)
        idle = run_in_one(config, datasette, listener, current.reread)
    leave_now_unless(idle)
    close(datasette)
    tidy(config)


def run_in_one(
    config: Config, datasette: "Datasette", listener: Listener, reread: Callable[[], Config]
) -> bool:
    """Sync and serve in this process; return whether its jobs ended in time."""
    from mirror.background.service import Background  # noqa: PLC0415 - as in `schedule`
    from mirror.operations import built_in_sandbox  # noqa: PLC0415 - as in `schedule`

    arrange(datasette, config)
    stop = threading.Event()
    end_soon_after(stop)
    with built_in_sandbox(config, lively=True), watching(config) as reporter:
        background = Background(
            config, report=reporter, stop=stop, reread=reread, adopt=lambda new: arrange(datasette, new)
        )

        def ready(address: str) -> None:
            tell_address(address)
            background.start()

        try:
            with background.signals(ends=False):
                answer(datasette, listener, ready=ready, stop=stop)
        finally:
            idle = background.end()
    return idle


def run_in_processes(datasette: "Datasette", listener: Listener, current: Current) -> int:
    """Serve in several processes and sync in another one; return the exit code.

    Each that replaces another one starts with the configuration that is current then.
    """
    from mirror.background.service import Background  # noqa: PLC0415 - as in `schedule`
    from mirror.operations import built_in_sandbox  # noqa: PLC0415 - as in `schedule`

    def sync(stop: threading.Event, ready: Ready) -> int:
        def work() -> None:
            now = current.config
            log_as(now)
            end_soon_after(stop)
            with built_in_sandbox(now, lively=True), watching(now) as reporter:
                background = Background(now, report=reporter, stop=stop, reread=current.renew, adopt=log_as)
                ready()
                leave_now_unless(background.run())

        return exit_code_of(work)

    def adopt() -> None:
        with suppress(ConfigError):  # the process that syncs reports the error
            current.renew()

    tasks = [*answering(datasette, listener, current), Task("the process that syncs", sync)]
    return Workers(tasks, ready=lambda: tell_address(listener.address), reread=adopt).run()


@contextmanager
def watching(config: Config) -> "Iterator[Reporter]":
    """Log what a run does, and show its progress on a terminal, if there is one."""
    if config.log.format == "json" or not sys.stderr.isatty():
        yield Logged()
        return
    from mirror.cli.sync import TerminalProgress  # noqa: PLC0415 - a log needs no bars

    with TerminalProgress(errors()) as bars:
        yield Logged(bars)
