"""What `mirror status` prints: how the mirror stands, in eighty columns."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mirror.status import UpstreamStatus
from mirror.times import age_text, from_text
from mirror.zones import local

WIDTH = 80
MOST_FAILURES = 20


def print_status(console: Console, statuses: Sequence[UpstreamStatus], now: datetime) -> None:
    """Print how the mirror stands, in 80 columns."""
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
    """Print what the table has no room for, a line each, in as many columns as there are up to 80."""
    width = min(WIDTH, console.width)
    for text in _details(status, now):
        for line in textwrap.wrap(f"{status.name}: {text}", width, subsequent_indent="  "):
            console.print(Text(line), soft_wrap=True)
    for failure in status.failures[:MOST_FAILURES]:
        console.print(Text(_failure_line(failure, width)), soft_wrap=True)


def _ages(status: UpstreamStatus) -> Iterator[str]:
    if status.clock_ahead is not None:
        yield (
            f"the clock was ahead once: moments up to {status.clock_ahead} count as never,"
            " and the next sync puts them right"
        )
    if status.listed_seconds:
        middle, most, worst = (age_text(status.listed_seconds[each]) for each in ("0.5", "0.95", "1"))
        yield f"half was listed {middle} ago or less, 95 % {most}, all {worst}"


def _details(status: UpstreamStatus, now: datetime) -> Iterator[str]:
    yield from _ages(status)
    if status.last_run is not None:
        yield _run_line(status.last_run, now)
    if status.gone or status.refs_waiting:
        yield f"{status.gone:,} gone, refs of {status.refs_waiting:,} waiting"
    if status.refs_unread:
        yield (
            "branches and tags are not mirrored"
            if status.refs == "none"
            else f"branches and tags of {status.refs_unread:,} repositories were not read yet"
        )
    if status.budget.held_until:
        until = local(from_text(status.budget.held_until))
        yield f"the upstream answered 429: nothing is asked until {until:%H:%M:%S}"
    elif status.budget.left == 0 and status.budget.resets_at:
        yield f"the next request is free at {local(from_text(status.budget.resets_at)):%H:%M:%S}"
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
    """Say how the last run went, or how far the one is that goes on."""
    ago = age_text(max(0.0, (now - from_text(run["started_at"])).total_seconds()))
    if run["state"] == "running":
        slept = f", {age_text(run['slept_seconds'])} of it waiting" if run["slept_seconds"] >= 1 else ""
        return f"running for {ago}{slept}: {run['kind']}, {run['requests']:,} requests so far"
    error = f": {_short(run['error'])}" if run["error"] else ""
    return f"last run {run['kind']}, {run['state']}, {ago} ago, {run['requests']:,} requests{error}"


def _failure_line(failure: dict[str, Any], width: int) -> str:
    """Say on one line what failed, why, and when it is tried again; what has no room is left out."""
    due = f" (again {local(from_text(failure['next_try_at'])):%m-%d %H:%M})"
    why = _short(failure["error"]).removeprefix(f"{failure['subject']}: ")
    mark = "(accepted) " if failure["accepted"] else ""
    text, room = f"  {mark}{failure['kind']} {failure['subject']}: {why}", width - len(due)
    return (text if len(text) <= room else text[: room - 1] + "…") + due


def _short(error: str) -> str:
    """Leave addresses out of what went wrong."""
    return re.sub(r"https?://\S+: ", "", error)
