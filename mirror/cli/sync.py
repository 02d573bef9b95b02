"""`mirror sync` and `mirror verify`."""

import signal
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from mirror.cli.main import configured, errors, leave, out
from mirror.cli.output import LogProgress, print_findings, print_plan, print_summary
from mirror.cli.printer import Printer
from mirror.config_checks import warn_of_open_files
from mirror.errors import ConfigError, Interrupted, StoreError, StoreLocked
from mirror.observe.alerts import Alerts
from mirror.observe.logs import Logged, log_run, secrets_of, set_up
from mirror.operations import SyncOptions, built_in_sandbox, plan_all, sync_all, verify_all
from mirror.store.integrity import check_file

if TYPE_CHECKING:
    from mirror.cli.bars import TerminalProgress


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--full", is_flag=True, help="List every repository, not only the updated ones.")
@click.option(
    "--plan", is_flag=True, help="Print how many requests a sync needs and how long it takes; do not sync."
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Stop when the hour's budget is spent, instead of waiting; the next run resumes.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="Send at most N requests. Default: no limit.",
)
@click.option(
    "--confirm-absence",
    is_flag=True,
    help="Mark all missing repositories as gone, even more than absence_brake allows.",
)
@click.pass_context
def sync(
    ctx: click.Context,
    names: tuple[str, ...],
    full: bool,
    plan: bool,
    no_wait: bool,
    max_requests: int | None,
    confirm_absence: bool,
) -> None:
    """Bring the mirror up to date; resume an interrupted run.

    NAME is an upstream of the configuration. Default: all of them, one after another.

    \b
    Examples:
        mirror sync
        mirror sync cloud --no-wait --max-requests 500     (from cron)
    """
    config = configured(ctx)
    warn_of_open_files(config)
    options = SyncOptions(
        names=names,
        full=full,
        may_wait=not no_wait,
        max_requests=max_requests,
        confirm_absence=confirm_absence,
    )
    with built_in_sandbox(config):
        if plan:
            print_plan(out(), plan_all(config, options))
            return
        as_json = config.log.format == "json"
        with nullcontext(Logged()) if as_json else progress() as reporter, _sigterm_interrupts():
            set_up(config.log, secrets_of(config))
            alerts = Alerts(config)
            try:
                summaries = sync_all(config, options, report=reporter, stop=threading.Event())
            except StoreError as error:
                if not isinstance(error, StoreLocked):
                    alerts.trouble("", str(error))
                    alerts.close()
                raise
    for summary in summaries:
        alerts.tell(summary)
        if as_json:
            log_run(summary)
        else:
            print_summary(out(), summary)
    alerts.close()
    leave(max((summary.exit_code for summary in summaries), default=0))


def progress() -> "AbstractContextManager[TerminalProgress | LogProgress]":
    """Return a reporter: bars on a terminal, else lines."""
    if not sys.stderr.isatty():
        return nullcontext(LogProgress(Printer(sys.stderr)))
    from mirror.cli.bars import TerminalProgress  # noqa: PLC0415 - cron needs no bars

    return TerminalProgress(errors())


class _sigterm_interrupts:  # noqa: N801 - reads as the context that it is
    """Treat SIGTERM as Ctrl-C: the cursor is kept, the run is recorded as interrupted."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    @staticmethod
    def _interrupt(_: int, __: FrameType | None) -> None:
        raise Interrupted("terminated; the next run resumes from here")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--sample",
    metavar="N|all",
    default="50",
    show_default=True,
    help="How many repositories to compare with the upstream; 0: none.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Replace differing rows by the upstream's answer, and rebuild a damaged index.",
)
@click.option("--no-wait", is_flag=True, help="Stop when the hour's budget is spent, instead of waiting.")
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], sample: str, repair: bool, no_wait: bool) -> None:
    """Check the file and its search index, and compare rows with the upstream.

    NAME is an upstream of the configuration. Default: all of them. Two requests for each repository.

    \b
    Examples:
        mirror verify
        mirror verify --sample all --repair
    """
    config = configured(ctx)
    number = None if sample == "all" else _whole(sample)
    complaints = check_file(Path(config.database), repair=repair)
    for complaint in complaints:
        click.echo(f"{complaint.text}{' (mended)' if complaint.mended else ''}")
    code = 0 if all(complaint.mended for complaint in complaints) else 1
    if number != 0:
        options = SyncOptions(names=names, may_wait=not no_wait)
        with built_in_sandbox(config), progress() as reporter, _sigterm_interrupts():
            summaries, findings = verify_all(
                config, options, sample=number, repair=repair, report=reporter, stop=threading.Event()
            )
        print_findings(out(), summaries, findings)
        wrong = any(finding.is_fault and not finding.mended for finding in findings)
        code = max([code, int(wrong), *(summary.exit_code for summary in summaries)])
    elif not complaints:
        click.echo("the file and its search index are whole")
    leave(code)


def _whole(text: str) -> int:
    """Read a number of repositories; raises ConfigError."""
    if not text.isdecimal():
        raise ConfigError(f"--sample: {text!r} is neither a number nor all")
    return int(text)
