"""What commands print of runs: their progress in a log, their summary, plans, findings."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from mirror.observe.logs import EveryMinute, row_counts, seconds_text
from mirror.queries.crawl import line_of
from mirror.readable import repositories_text
from mirror.report import Summary
from mirror.store.crawl_state import Progress
from mirror.store.failures import HIDDEN_MEMBERS, Failure
from mirror.sync.plan import BudgetShare, Plan
from mirror.sync.verify import Difference
from mirror.times import age_text, day_text, from_text

MOST_NAMES, MOST_FAILURES = 10, 50


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
            _say(self._console, what + (f": {total:,}" if total is not None else ""))

    def progress(self, progress: Progress) -> None:
        """Print the progress, once a minute."""
        if self._minute.is_over():
            _say(self._console, line_of(progress))

    def waiting(self, seconds: float, why: str) -> None:
        """Print the reason of a wait, once."""
        if why != self._waits:
            self._waits = why
            _say(self._console, f"waiting {age_text(seconds)}: {why}")

    def note(self, text: str) -> None:
        """Print a note."""
        _say(self._console, text)


def print_summary(console: Console, summary: Summary) -> None:
    """Print the summary of a run: what was new, changed or gone, its requests, and what is missing."""
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
    """Print the requests that a sync needs, the remaining budget, and the expected end."""
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


def print_findings(console: Console, summaries: Sequence[Summary], findings: Sequence[Difference]) -> None:
    """Print the results of a comparison with the upstreams."""
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
    """List what is missing with the next tries, then what is accepted as missing."""
    hidden = [failure for failure in summary.accepted if failure.kind == HIDDEN_MEMBERS]
    accepted = [failure for failure in summary.accepted if failure.kind != HIDDEN_MEMBERS]
    _print_failures(console, "failed", summary.failures)
    _print_failures(console, "waiting", summary.waiting)
    if summary.refs_waiting:
        _say(console, f"  waiting       refs: branches and tags of {repositories_text(summary.refs_waiting)}")
    _print_failures(console, "accepted", accepted)
    if hidden:
        names = ", ".join(failure.subject for failure in hidden[:MOST_NAMES])
        more = f" and {len(hidden) - MOST_NAMES:,} more" if len(hidden) > MOST_NAMES else ""
        _say(console, f"  not visible   members of {names}{more}: {hidden[0].error}")


def _print_failures(console: Console, what: str, failures: Sequence[Failure]) -> None:
    """List failures with their next tries."""
    for failure in failures[:MOST_FAILURES]:
        _say(console, f"  {what:<13} {failure.kind}: {_named(failure)}{_next_try(failure.next_try_at)}")
    if len(failures) > MOST_FAILURES:
        _say(console, f"  ... and {len(failures) - MOST_FAILURES:,} more: mirror status")


def _named(failure: Failure) -> str:
    """Return the error, after its subject unless the error names it or it is only a uuid."""
    if failure.subject in failure.error or failure.subject.startswith("{"):
        return failure.error
    return f"{failure.subject}: {failure.error}"


def _say(console: Console, text: str) -> None:
    """Print a line without markup and wrapping."""
    console.print(Text(text), soft_wrap=True)


def _next_try(moment: str) -> str:
    return f" (next try {day_text(from_text(moment))})" if moment else ""
