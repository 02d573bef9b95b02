"""`mirror sync` and `mirror verify`, and what they print: progress, summaries, plans, findings."""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from mirror.cli.common import configured, errors, leave, number_option, out, unread
from mirror.cli.printer import Printer
from mirror.config import Config
from mirror.config_checks import warn
from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.observe.alerts import Alerts
from mirror.observe.logs import EveryMinute, Logged, log_run, row_counts, seconds_text, secrets_of, set_up
from mirror.operations import Control, SyncOptions, built_in_sandbox, plan_all, sync_all, verify_all
from mirror.queries.crawl import line_of
from mirror.readable import repositories_text, requests_text
from mirror.report import Reporter, Summary
from mirror.store.crawl_state import Progress
from mirror.store.repair import check_file, record_check
from mirror.store.runs import HIDDEN_MEMBERS, Failure
from mirror.sync.plan import BudgetShare, Plan
from mirror.sync.verify import Difference
from mirror.times import age_text, day_text, from_text, to_text, utc_now

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--full",
    is_flag=True,
    help="List every repository, not only the updated ones, and retry all that failed.",
)
@click.option(
    "--plan", is_flag=True, help="Print how many requests a sync needs and how long it takes; do not sync."
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Stop when the hour's budget is spent, instead of waiting; the next run resumes.",
)
@number_option("--max-requests", "Send at most N requests. Default: no limit.", least=1)
@click.option(
    "--confirm-absence",
    is_flag=True,
    help="Mark all missing repositories as gone, even more than absence_brake allows.",
)
def sync(
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
    config = configured()
    warn(config)
    options = SyncOptions(
        names=names,
        full=full,
        may_wait=not no_wait,
        max_requests=max_requests,
        confirm_absence=confirm_absence,
    )
    with built_in_sandbox(config):
        if plan:
            with progress() as reporter:
                plans = plan_all(config, options, Control(report=reporter))
            print_plan(out(), plans)
            return
        as_json = config.log.format == "json"
        with nullcontext(Logged()) if as_json else progress() as reporter:
            set_up(config.log, secrets_of(config))
            alerts = Alerts(config)
            summaries = _sync_or_alert(config, options, reporter, alerts)
    for summary in summaries:
        alerts.send_for(summary)
    with closing(alerts), unread():  # closing waits until they are delivered
        for summary in summaries:
            if as_json:
                log_run(summary)
            else:
                print_summary(out(), summary)
    leave(max((summary.exit_code for summary in summaries), default=0))


def _sync_or_alert(config: Config, options: SyncOptions, reporter: Reporter, alerts: Alerts) -> list[Summary]:
    """Sync; send an alert if the file cannot be used, unless that is because another run is at work."""
    try:
        return sync_all(config, options, Control(report=reporter))
    except StoreError as error:
        if not isinstance(error, StoreLocked):
            alerts.send_failure("", str(error))
            alerts.close()
        raise


def progress() -> "AbstractContextManager[TerminalProgress | LogProgress]":
    """Return a reporter: bars on a terminal, else lines."""
    if not sys.stderr.isatty():
        return nullcontext(LogProgress(Printer(sys.stderr)))
    return TerminalProgress(errors())


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
def verify(names: tuple[str, ...], sample: str, repair: bool, no_wait: bool) -> None:
    """Check the file and its search index, and compare rows with the upstream.

    NAME is an upstream of the configuration. Default: all of them. Two requests for each repository.

    \b
    Examples:
        mirror verify
        mirror verify --sample all --repair
    """
    config = configured()
    number = None if sample == "all" else _whole_number(sample)
    complaints = check_file(Path(config.database), repair=repair)
    with suppress(StoreError):  # a mirror that cannot be written can be checked all the same
        record_check(Path(config.database), complaints, at=to_text(utc_now()))
    with unread():
        for complaint in complaints:
            click.echo(f"{complaint.text}{' (mended)' if complaint.mended else ''}")
    code = 0 if all(complaint.mended for complaint in complaints) else 1
    if number != 0:
        options = SyncOptions(names=names, may_wait=not no_wait)
        with built_in_sandbox(config), progress() as reporter:
            summaries, findings = verify_all(
                config, options, Control(report=reporter), sample=number, repair=repair
            )
        with unread():
            print_findings(out(), summaries, findings)
        wrong = any(finding.is_fault and not finding.mended for finding in findings)
        code = max([code, int(wrong), *(summary.exit_code for summary in summaries)])
    elif not complaints:
        click.echo("the file and its search index are whole")
    leave(code)


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--sample: {text!r} is neither a number nor all")
    return int(text)


MOST_NAMES, MOST_FAILURES = 10, 50


class TerminalProgress(Reporter):
    """Shows the progress of a run on a terminal: a bar for each phase."""

    def __init__(self, console: "Console") -> None:
        # Slow to import, and cron needs no bars.
        from rich.progress import BarColumn, SpinnerColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as Bars  # noqa: PLC0415

        columns = SpinnerColumn(), BarColumn(20), TextColumn("{task.description}")
        self._bars = Bars(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def phase(self, what: str, total: int | None) -> None:
        """Begin a bar; without a `total`, it only shows that something moves."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._line = what
        self._task = self._bars.add_task(what, total=total)

    def progress(self, progress: Progress) -> None:
        """Advance the bar, with the progress as text beside it."""
        self._line = line_of(progress)
        if self._task is not None:
            self._bars.update(
                self._task, completed=progress.done, total=progress.total, description=self._line
            )

    def waiting(self, seconds: float, why: str) -> None:
        """Show the remaining time and the reason."""
        if self._task is not None:
            self._bars.update(self._task, description=f"{self._line} (waiting {age_text(seconds)}: {why})")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        from rich.text import Text  # noqa: PLC0415 - as above

        self._bars.console.print(Text(text))


class LogProgress(Reporter):
    """The progress of a run in a log: a line for each phase, and one every minute."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._minute = EveryMinute(time.monotonic)
        self._waits = ""

    def phase(self, what: str, total: int | None) -> None:
        """Print the phase that begins."""
        self._minute.begin()
        if total != 0:
            self._printer.line(what + (f": {total:,}" if total is not None else ""))

    def progress(self, progress: Progress) -> None:
        """Print the progress, once a minute."""
        if self._minute.is_over():
            self._printer.line(line_of(progress))

    def waiting(self, seconds: float, why: str) -> None:
        """Print a wait once for each reason."""
        if why != self._waits:
            self._waits = why
            self._printer.line(f"waiting {age_text(seconds)}: {why}")

    def note(self, text: str) -> None:
        """Print a note."""
        self._printer.line(text)


def print_summary(printer: Printer, summary: Summary) -> None:
    """Print the summary of a run: what was new, changed or gone, its requests, and what is missing."""
    counts = summary.counts
    rows, refs = row_counts(counts)
    git = f" and {counts.git_requests:,} by git" if counts.git_requests else ""
    slept = f", {age_text(counts.slept_seconds)} of it waiting" if counts.slept_seconds >= 1 else ""
    mark = {"complete": "complete", "incomplete": "finished, but some items are missing"}
    printer.line(f"{summary.upstream}: {mark.get(summary.state, summary.state)}")
    printer.line(f"  repositories  {rows}")
    printer.line(f"  refs          {refs}")
    printer.line(f"  requests      {counts.requests:,}{git} in {seconds_text(summary.seconds)}{slept}")
    if summary.error and all(failure.error != summary.error for failure in summary.failures):
        printer.line(f"  {summary.state:<13} {summary.error}")
    print_missing(printer, summary)


def print_plan(printer: Printer, plans: Sequence[Plan]) -> None:
    """Print the requests that a sync needs, the remaining budget, and the expected end."""
    for plan in plans:
        by_git = f" and {plan.git.total:,} by git" if plan.git.total else ""
        printer.line(f"{plan.upstream}: {requests_text(plan.api.total)}{by_git}")
        for what, count in plan.requests.items():
            if count:
                printer.say(f"  {what:<24} {count:>9,}")
        printer.say(f"  budget                   {_budget_left(plan.api)}")
        if plan.git.total:
            printer.say(f"  budget of git            {_budget_left(plan.git)}")
        done = f"{day_text(plan.done_at)}, in {age_text(plan.seconds)}"
        printer.say(f"  expected to be done      {done}")
        for note in plan.notes:
            printer.line(f"  note: {note}")


def _budget_left(share: BudgetShare) -> str:
    return "no limit" if share.left is None else f"{share.left:,} of {share.limit:,} left in this hour"


def print_findings(printer: Printer, summaries: Sequence[Summary], findings: Sequence[Difference]) -> None:
    """Print the results of a comparison with the upstreams."""
    for finding in findings:
        mended = ", mended" if finding.mended else ""
        printer.line(f"{finding.repository}: {finding.verdict}{mended}: {finding.what}")
    wrong = sum(finding.is_fault for finding in findings)
    for summary in summaries:
        asked = f"{requests_text(summary.counts.requests)} in {seconds_text(summary.seconds)}"
        error = f": {summary.error}" if summary.error else ""
        printer.line(f"{summary.upstream}: {summary.state}{error}; {asked}")
        print_missing(printer, summary)
    old = sum(finding.verdict == "old" for finding in findings)
    printer.line(f"{wrong:,} wrong, {old:,} merely old" if findings else "no difference")


def print_missing(printer: Printer, summary: Summary) -> None:
    """List what is missing, with the time of the next attempt, then what is accepted as missing."""
    hidden = [failure for failure in summary.accepted if failure.kind == HIDDEN_MEMBERS]
    accepted = [failure for failure in summary.accepted if failure.kind != HIDDEN_MEMBERS]
    _print_failures(printer, "failed", summary.failures)
    _print_failures(printer, "waiting", summary.waiting)
    if summary.refs_waiting:
        told = f"branches and tags of {repositories_text(summary.refs_waiting)}"
        printer.line(f"  waiting       refs: {told}")
    _print_failures(printer, "accepted", accepted)
    if hidden:
        names = ", ".join(failure.subject for failure in hidden[:MOST_NAMES])
        more = f" and {len(hidden) - MOST_NAMES:,} more" if len(hidden) > MOST_NAMES else ""
        printer.line(f"  not visible   members of {names}{more}: {hidden[0].error}")


def _print_failures(printer: Printer, what: str, failures: Sequence[Failure]) -> None:
    for failure in failures[:MOST_FAILURES]:
        moment = failure.next_try_at
        due = f" (next try {day_text(from_text(moment))})" if moment else ""
        printer.line(f"  {what:<13} {failure.kind}: {_failure_text(failure)}{due}")
    if len(failures) > MOST_FAILURES:
        printer.line(f"  ... and {len(failures) - MOST_FAILURES:,} more: mirror status")


def _failure_text(failure: Failure) -> str:
    # A uuid says nothing to people.
    if failure.subject in failure.error or failure.subject.startswith("{"):
        return failure.error
    return f"{failure.subject}: {failure.error}"
