"""What commands print: the progress and the summary of a run, plans, findings, the status."""

import re
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from mirror.observe.logs import EveryMinute, row_counts, seconds_text
from mirror.queries.progress import line_of, progress_text
from mirror.queries.status import UpstreamStatus
from mirror.report import Summary
from mirror.store.crawl_state import Progress
from mirror.store.failures import HIDDEN_MEMBERS, Failure
from mirror.sync.plan import BudgetShare, Plan
from mirror.sync.verify import Finding
from mirror.times import age_text, day_text, from_text, local, time_text

MOST_NAMES = 10
WIDTH = 80


class TerminalProgress:
    """The progress of a run on a terminal: a bar for each phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = ProgressBars(
            SpinnerColumn(), BarColumn(20), TextColumn("{task.description}"), console=console, transient=True
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, what: str, total: int | None) -> None:
        """Begin a bar; `total` None shows movement only."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._line = what
        self._task = self._progress.add_task(what, total=total)

    def progress(self, progress: Progress) -> None:
        """Advance the bar, and show the line of the log beside it."""
        self._line = line_of(progress)
        if self._task is not None:
            self._progress.update(
                self._task, completed=progress.done, total=progress.total, description=self._line
            )

    def waiting(self, seconds: float, why: str) -> None:
        """Show the remaining seconds and the reason."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{self._line} (waiting {seconds:.0f} s: {why})")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(Text(text))


class LogProgress:
    """The progress of a run in a log: a line for each phase, and one every minute."""

    def __init__(self, console: Console, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._minute = EveryMinute(stopwatch)
        self._waits = ""

    def phase(self, what: str, total: int | None) -> None:
        """Print the phase that begins."""
        self._minute.begin()
        if total != 0:
            self._say(what + (f": {total:,}" if total is not None else ""))

    def progress(self, progress: Progress) -> None:
        """Print it, once a minute."""
        if self._minute.is_over():
            self._say(line_of(progress))

    def waiting(self, seconds: float, why: str) -> None:
        """Print the reason of a wait, once."""
        if why != self._waits:
            self._waits = why
            self._say(f"waiting {age_text(seconds)}: {why}")

    def note(self, text: str) -> None:
        """Print it."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def print_summary(console: Console, summary: Summary) -> None:
    """Print the summary of a run: what was new, changed, gone; its requests; what is missing."""
    counts = summary.counts
    rows, refs = row_counts(counts)
    git = f" and {counts.git_requests:,} by git" if counts.git_requests else ""
    slept = f", {age_text(counts.slept_seconds)} of it waiting" if counts.slept_seconds >= 1 else ""
    mark = {"complete": "complete", "incomplete": "finished, but some items are missing"}
    _say(console, f"{summary.upstream}: {mark.get(summary.state, summary.state)}")
    _say(console, f"  repositories  {rows}")
    _say(console, f"  refs          {refs}")
    _say(console, f"  requests      {counts.requests:,}{git} in {seconds_text(summary.seconds)}{slept}")
    if summary.error:
        _say(console, f"  {summary.state:<13} {summary.error}")
    print_missing(console, summary)


def print_plan(console: Console, plans: Sequence[Plan]) -> None:
    """Print the requests a sync needs, the budget left, and when it would be done."""
    for plan in plans:
        by_git = f" and {plan.git.total:,} by git" if plan.git.total else ""
        console.print(Text(f"{plan.upstream}: {plan.api.total:,} requests{by_git}"), soft_wrap=True)
        for what, count in plan.requests.items():
            if count:
                console.print(Text(f"  {what:<24} {count:>9,}"))
        console.print(Text(f"  budget                   {_left(plan.api)}"))
        if plan.git.total:
            console.print(Text(f"  budget of git            {_left(plan.git)}"))
        done = f"{day_text(plan.done_at)}, in {age_text(plan.seconds)}"
        console.print(Text(f"  expected to be done      {done}"))
        for note in plan.notes:
            console.print(Text(f"  note: {note}"), soft_wrap=True)


def _left(share: BudgetShare) -> str:
    return "no limit" if share.left is None else f"{share.left:,} of {share.limit:,} left in this hour"


def print_findings(console: Console, summaries: Sequence[Summary], findings: Sequence[Finding]) -> None:
    """Print what a comparison with the upstreams found."""
    for finding in findings:
        mended = ", mended" if finding.mended else ""
        _say(console, f"{finding.repository}: {finding.verdict}{mended}: {finding.what}")
    wrong = sum(finding.is_fault for finding in findings)
    for summary in summaries:
        asked = f"{summary.counts.requests:,} requests in {seconds_text(summary.seconds)}"
        error = f": {summary.error}" if summary.error else ""
        _say(console, f"{summary.upstream}: {summary.state}{error}; {asked}")
        print_missing(console, summary)
    old = sum(finding.verdict == "old" for finding in findings)
    _say(console, f"{wrong:,} wrong, {old:,} merely old" if findings else "no difference")


def print_missing(console: Console, summary: Summary) -> None:
    """List what is missing and when it is tried again, then what is accepted as missing."""
    hidden = [failure for failure in summary.accepted if failure.kind == HIDDEN_MEMBERS]
    accepted = [failure for failure in summary.accepted if failure.kind != HIDDEN_MEMBERS]
    print_failures(console, "failed", summary.failures)
    print_failures(console, "waiting", summary.waiting)
    if summary.refs_waiting:
        _say(console, f"  waiting       refs: branches and tags of {summary.refs_waiting:,} repositories")
    print_failures(console, "accepted", accepted)
    if hidden:
        names = ", ".join(failure.subject for failure in hidden[:MOST_NAMES])
        more = f" and {len(hidden) - MOST_NAMES:,} more" if len(hidden) > MOST_NAMES else ""
        _say(console, f"  not visible   members of {names}{more}: {hidden[0].error}")


def print_failures(console: Console, what: str, failures: Sequence[Failure], most: int = 50) -> None:
    """List failures, and when each is tried again."""
    for failure in failures[:most]:
        _say(console, f"  {what:<13} {failure.kind}: {_named(failure)}{_next_try(failure.next_try_at)}")
    if len(failures) > most:
        console.print(Text(f"  ... and {len(failures) - most:,} more: mirror status"), soft_wrap=True)


def _named(failure: Failure) -> str:
    """Return the error, after its subject unless the error names it or it is only a uuid."""
    if failure.subject in failure.error or failure.subject.startswith("{"):
        return failure.error
    return f"{failure.subject}: {failure.error}"


def _say(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no wrapping."""
    console.print(Text(text), soft_wrap=True)


def _next_try(moment: str) -> str:
    return f" (next try {day_text(from_text(moment))})" if moment else ""


MOST_FAILURES = 20


def print_status(console: Console, statuses: Sequence[UpstreamStatus], now: datetime) -> None:
    """Print the status of each upstream, at most 80 columns wide."""
    table = Table(box=None, pad_edge=False)
    for column in ("upstream", "repositories", "branches", "tags", "complete", "budget left"):
        table.add_column(column, justify="left" if column == "upstream" else "right", overflow="fold")
    for status in statuses:
        age = "never" if status.freshness_seconds is None else f"{age_text(status.freshness_seconds)} ago"
        left = status.budget.left
        budget = f"{status.budget.used:,} used" if left is None else f"{left:,} of {status.budget.limit:,}"
        table.add_row(
            status.name, f"{status.repositories:,}", f"{status.branches:,}", f"{status.tags:,}", age, budget
        )
    console.print(table, width=min(WIDTH, console.width))
    for status in statuses:
        _print_details(console, status, now)


def _print_details(console: Console, status: UpstreamStatus, now: datetime) -> None:
    """Print what does not fit into the table, wrapped at 80 columns or the terminal's width."""
    width = min(WIDTH, console.width)
    for text in _details(status, now):
        for line in textwrap.wrap(f"{status.name}: {text}", width, subsequent_indent="  "):
            console.print(Text(line), soft_wrap=True)
    for failure in status.failures[:MOST_FAILURES]:
        console.print(Text(_failure_line(failure, width)), soft_wrap=True)


def _ages(status: UpstreamStatus) -> Iterator[str]:
    if status.clock_ahead is not None:
        yield (
            f"the clock was ahead once: times up to {status.clock_ahead} are ignored,"
            " and the next sync corrects them"
        )
    if status.listed_seconds:
        middle, most, worst = (age_text(status.listed_seconds[each]) for each in ("0.5", "0.95", "1"))
        yield f"listing age: p50 {middle}, p95 {most}, max {worst}"


def _details(status: UpstreamStatus, now: datetime) -> Iterator[str]:
    yield from _ages(status)
    if status.last_run is not None:
        yield _run_line(status.last_run, now)
    if status.progress is not None:
        yield progress_text(status.progress, now)
    if status.gone or status.refs_waiting:
        yield f"{status.gone:,} gone, refs of {status.refs_waiting:,} waiting"
    if status.refs_unread:
        yield (
            "branches and tags are not mirrored"
            if status.refs == "none"
            else f"branches and tags of {status.refs_unread:,} repositories were not read yet"
        )
    if status.budget.held_until:
        until = time_text(from_text(status.budget.held_until))
        yield f"the upstream answered 429: nothing is asked until {until}"
    elif status.budget.left == 0 and status.budget.resets_at:
        yield f"the next request is free at {time_text(from_text(status.budget.resets_at))}"
    if status.service_running is False:
        yield "no service is running; `mirror run` or `mirror schedule` syncs by schedule, `mirror sync` once"
    elif status.next_runs:
        due = sorted((from_text(moment), kind) for kind, moment in status.next_runs.items())
        told = (f"{kind} in {age_text(max(0, (at - now).total_seconds()))}" for at, kind in due)
        yield f"next {', '.join(told)}"
    if status.failures:
        more = len(status.failures) - MOST_FAILURES
        only = f", the latest {MOST_FAILURES} below" if more > 0 else ""
        accepted = f", {status.accepted:,} accepted" if status.accepted else ""
        yield f"{status.missing:,} missing{accepted}{only}; in full: mirror status --json"


def _run_line(run: dict[str, Any], now: datetime) -> str:
    """Describe the last run, or the progress of the one that is running."""
    ago = age_text(max(0.0, (now - from_text(run["started_at"])).total_seconds()))
    if run["state"] == "running":
        slept = f", {age_text(run['slept_seconds'])} of it waiting" if run["slept_seconds"] >= 1 else ""
        return f"running for {ago}{slept}: {run['kind']}, {run['requests']:,} requests so far"
    error = f": {_short(run['error'])}" if run["error"] else ""
    return f"last run {run['kind']}, {run['state']}, {ago} ago, {run['requests']:,} requests{error}"


def _failure_line(failure: dict[str, Any], width: int) -> str:
    """Return one line on a failure, cut to the width: what, why, and the next attempt."""
    due = f" (again {local(from_text(failure['next_try_at'])):%m-%d %H:%M %Z})"
    why = _short(failure["error"]).removeprefix(f"{failure['subject']}: ")
    mark = "(accepted) " if failure["accepted"] else ""
    text, room = f"  {mark}{failure['kind']} {failure['subject']}: {why}", width - len(due)
    return (text if len(text) <= room else text[: room - 1] + "…") + due


def _short(error: str) -> str:
    """Remove addresses from an error."""
    return re.sub(r"https?://\S+: ", "", error)
