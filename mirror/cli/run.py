"""`mirror schedule`, `mirror run`: sync by schedule, without and with a server."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from datasette.app import Datasette

from mirror.background.service import Background, acceptable
from mirror.cli.bars import TerminalProgress
from mirror.cli.main import configured, errors, exit_code_of, leave
from mirror.cli.serve import (
    announce,
    answering,
    application,
    arrange,
    end_soon_after,
    leave_now_unless,
    log_as,
    serve_options,
    with_options,
)
from mirror.config import Config
from mirror.config_checks import warn_of_open_files
from mirror.errors import ConfigError
from mirror.observe.logs import Logged
from mirror.operations import built_in_sandbox
from mirror.report import Reporter
from mirror.serve.server import Listener, answer, listening
from mirror.serve.workers import Ready, Task, Workers
from mirror.store import Store
from mirror.store.files import refuse_snapshot


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
@serve_options
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Sync by schedule and serve, in one process or in several.

    \b
    Example:
        mirror run --port 8001
    """
    config = with_options(configured(ctx), **options)
    if config.serve.read_only:
        raise ConfigError("[serve] read_only = true is for `mirror serve`: `mirror run` syncs into the file")
    Store(Path(config.database), config.mode).close()  # there must be a file to serve before the first sync
    datasette = application(config)
    warn_of_open_files(config)
    with listening(config.serve.host, config.serve.port) as listener:
        if config.serve.workers > 1:
            leave(run_in_processes(ctx, config, datasette, listener, options))
        idle = run_in_one(ctx, config, datasette, listener, options)
    leave_now_unless(idle)


def run_in_one(
    ctx: click.Context, config: Config, datasette: Datasette, listener: Listener, options: dict[str, Any]
) -> bool:
    """Sync and serve in this process; return whether its jobs ended in time."""
    arrange(datasette, config)
    stop = threading.Event()
    end_soon_after(stop)
    with built_in_sandbox(config, lively=True), watching(config) as reporter:
        background = Background(
            config,
            report=reporter,
            stop=stop,
            reread=lambda: with_options(configured(ctx), **options),
            adopt=lambda new: arrange(datasette, new),
        )

        def ready(address: str) -> None:
            announce(address)
            background.start()

        try:
            with background.signals(ends=False):
                answer(datasette, listener, ready=ready, stop=stop)
        finally:
            idle = background.end()
    return idle


def run_in_processes(
    ctx: click.Context, config: Config, datasette: Datasette, listener: Listener, options: dict[str, Any]
) -> int:
    """Serve in several processes and sync in another one; return the exit code."""
    now = [config]  # the configuration of processes that replace others

    def reread() -> Config:
        return acceptable(with_options(configured(ctx), **options), now[0])

    def sync(stop: threading.Event, ready: Ready) -> int:
        def work() -> None:
            log_as(now[0])
            end_soon_after(stop)
            with built_in_sandbox(now[0], lively=True), watching(now[0]) as reporter:
                background = Background(now[0], report=reporter, stop=stop, reread=reread, adopt=log_as)
                ready()
                leave_now_unless(background.run())

        return exit_code_of(work)

    def adopt() -> None:
        with suppress(ConfigError):  # the process that syncs reports it
            now[0] = reread()

    tasks = [*answering(datasette, listener, lambda: now[0], reread), Task("the process that syncs", sync)]
    return Workers(tasks, ready=lambda: announce(listener.address), reread=adopt).run()


@contextmanager
def watching(config: Config) -> Iterator[Reporter]:
    """Log what a run does, and show its progress on a terminal, if there is one."""
    if config.log.format == "json" or not sys.stderr.isatty():
        yield Logged()
        return
    with TerminalProgress(errors()) as bars:
        yield Logged(bars)
