"""`mirror status` and `mirror check`: what state the mirror is in, and whether everything is in place."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mirror.cli.common import configured, json_option, leave, out, unread
from mirror.cli.printer import Grid, Printer
from mirror.errors import IF_RENAMED, ConfigError
from mirror.queries.crawl import progress_text
from mirror.queries.status import HistoryStatus, UpstreamStatus, history_status, read_status
from mirror.readable import repositories_text, requests_text, size_text
from mirror.store.faults import damage_explained
from mirror.store.files import open_reader
from mirror.store.ledger import reported_limits
from mirror.store.lock import is_syncing, service_runs
from mirror.times import age_text, from_text, local, time_text, utc_now
from mirror.upstream.connect import accounts_by_upstream

if TYPE_CHECKING:
    from mirror.check import Check

WIDTH = 80
MOST_FAILURES = 20


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show counts, age, budget and failures of each upstream.

    \b
    Example:
        mirror status --json | jq '.upstreams[].freshness_seconds'
    """
    config = configured()
    path = Path(config.database)
    with closing(open_reader(path)) as connection, damage_explained(path):
        now = utc_now()
        accounts = accounts_by_upstream(config, reported_limits(connection))
        statuses = read_status(connection, now, accounts, syncing=is_syncing(path))
        history = history_status(connection)
        running = service_runs(path)
        names = {upstream.name for upstream in config.upstreams}
        for upstream in statuses:
            upstream.configured = upstream.name in names
            upstream.service_running = running
            if running is not False:  # None: a file system without locks, where one may run
                # APScheduler is slow to import.
                from mirror.background.freshness import Watches  # noqa: PLC0415

                upstream.next_runs = Watches(config, lambda: now).next_runs(connection, upstream.name)
    if as_json:
        click.echo(msgspec.json.encode({"upstreams": statuses, "history": history}))
    else:
        printer = out()
        print_status(printer, statuses, now)
        printer.line(_history_line(history))


def _history_line(history: HistoryStatus) -> str:
    size = "" if history.bytes is None else f", {size_text(history.bytes)}"
    since = f" since {history.since[:10]}" if history.since else ""
    exact = f"; before {history.compacted_before[:10]} to the day" if history.compacted_before else ""
    return f"history: {history.changes:,} changes{since}{size}{exact}"


def print_status(printer: Printer, statuses: Sequence[UpstreamStatus], now: datetime) -> None:
    """Print the status of each upstream, at most 80 columns wide."""
    titles = ("upstream", "repositories", "branches", "tags", "complete", "budget left")
    sides = {"upstream": "left"}
    table = Grid(*({"header": one, "justify": sides.get(one, "right")} for one in titles))
    for status in statuses:
        age = "never" if status.freshness_seconds is None else f"{age_text(status.freshness_seconds)} ago"
        left = status.budget.left
        budget = f"{status.budget.used:,} used" if left is None else f"{left:,} of {status.budget.limit:,}"
        table.add(
            status.name, f"{status.repositories:,}", f"{status.branches:,}", f"{status.tags:,}", age, budget
        )
    printer.table(table, WIDTH)
    for status in statuses:
        _print_details(printer, status, now)


def _print_details(printer: Printer, status: UpstreamStatus, now: datetime) -> None:
    """Print what does not fit into the table, wrapped at 80 columns or the terminal's width."""
    width = min(WIDTH, printer.width)
    for text in _details(status, now):
        for line in textwrap.wrap(f"{status.name}: {text}", width, subsequent_indent="  "):
            printer.line(line)
    for failure in status.failures[:MOST_FAILURES]:
        printer.line(_failure_line(failure, width))


def _file_state(status: UpstreamStatus) -> Iterator[str]:
    """Yield what limits the use of the rows, and how old they are."""
    if not status.configured:
        yield f"the configuration does not name it: {IF_RENAMED}"
    if status.restored_at:
        yield "a copy was restored: strangers get no answer before a full listing, which `mirror sync` makes"
    if status.clock_ahead is not None:
        yield (
            f"the clock was ahead once: times up to {status.clock_ahead} are ignored,"
            " and the next sync corrects them"
        )
    if status.listed_seconds:
        middle, most, worst = (age_text(status.listed_seconds[each]) for each in ("0.5", "0.95", "1"))
        yield f"listing age: p50 {middle}, p95 {most}, max {worst}"


def _details(status: UpstreamStatus, now: datetime) -> Iterator[str]:
    yield from _file_state(status)
    yield from _crawl_state(status, now)
    if status.budget.held_until:
        until = time_text(from_text(status.budget.held_until))
        yield f"the upstream answered 429: nothing is asked until {until}"
    elif status.budget.left == 0 and status.budget.resets_at:
        yield f"the next request is free at {time_text(from_text(status.budget.resets_at))}"
    if status.service_running is False:
        yield "no service is running; `mirror run` or `mirror schedule` syncs by schedule, `mirror sync` once"
    elif status.next_runs:
        yield f"next {_schedule_text(status.next_runs, now)}"
    if status.failures:
        more = len(status.failures) - MOST_FAILURES
        only = f", the latest {MOST_FAILURES} below" if more > 0 else ""
        accepted = f", {status.accepted:,} accepted" if status.accepted else ""
        yield f"{status.missing:,} missing{accepted}{only}; in full: mirror status --json"


def _crawl_state(status: UpstreamStatus, now: datetime) -> Iterator[str]:
    """Yield what the last run did, and what is left to do."""
    if status.last_run is not None:
        yield _run_line(status.last_run, now)
    if status.progress is not None:
        yield progress_text(status.progress, now)
    # Progress is saved every few seconds: newer counts beside it would contradict it.
    is_told = status.progress is not None
    found = [f"{status.gone:,} gone"] if status.gone else []
    found += [f"refs of {status.refs_waiting:,} waiting"] if status.refs_waiting and not is_told else []
    if found:
        yield ", ".join(found)
    if status.refs_unread and not is_told:
        yield (
            "branches and tags are not mirrored"
            if status.refs == "none"
            else f"branches and tags of {repositories_text(status.refs_unread)} were not read yet"
        )


def _schedule_text(next_runs: Mapping[str, str], now: datetime) -> str:
    due = sorted((from_text(moment), kind) for kind, moment in next_runs.items())
    return ", ".join(
        f"{kind} in {age_text((at - now).total_seconds())}" if at > now else f"{kind} now" for at, kind in due
    )


def _run_line(run: dict[str, Any], now: datetime) -> str:
    """Describe the last run, or the progress of the one that is running."""
    ago = age_text(max(0.0, (now - from_text(run["started_at"])).total_seconds()))
    if run["state"] == "running":
        slept = f", {age_text(run['slept_seconds'])} of it waiting" if run["slept_seconds"] >= 1 else ""
        return f"running for {ago}{slept}: {run['kind']}, {requests_text(run['requests'])} so far"
    error = f": {_short(run['error'])}" if run["error"] else ""
    return f"last run {run['kind']}, {run['state']}, {ago} ago, {requests_text(run['requests'])}{error}"


def _failure_line(failure: dict[str, Any], width: int) -> str:
    """Describe a failure in one line, cut to the width: what, why, and the next try."""
    due = f" (again {local(from_text(failure['next_try_at'])):%m-%d %H:%M %Z})"
    why = _short(failure["error"]).removeprefix(f"{failure['subject']}: ")
    mark = "(accepted) " if failure["accepted"] else ""
    text, room = f"  {mark}{failure['kind']} {failure['subject']}: {why}", width - len(due)
    return (text if len(text) <= room else text[: room - 1] + "…") + due


def _short(error: str) -> str:
    return re.sub(r"https?://\S+: ", "", error)


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Check that everything is in place: configuration, credentials, upstreams, disk, file, service.

    Nothing is changed; each upstream gets a few requests. Exit code 0 if all is well, 2 for the
    configuration, 3 for a credential, 4 for anything else.

    \b
    Examples:
        mirror check
        mirror check --json | jq '.checks[] | select(.ok | not)'
    """
    from mirror.check import exit_code  # noqa: PLC0415 - httpx and APScheduler are slow to import

    found = _found(as_json=as_json)
    code = exit_code(found)
    if as_json:
        told = {"ok": code == 0, "checks": [each.public() for each in found]}
        with unread():
            click.echo(msgspec.json.encode(told))
    leave(code)


def _found(*, as_json: bool) -> "list[Check]":
    """Run all checks; without JSON, print each as soon as it is done."""
    from mirror.check import faulty_configuration, run_checks  # noqa: PLC0415 - as in `check`
    from mirror.operations import built_in_sandbox  # noqa: PLC0415 - as in `check`

    found = list["Check"]()

    def add(one: "Check") -> None:
        found.append(one)
        if not as_json:
            with unread():
                _print_check(one)

    try:
        config = configured()
    except ConfigError as error:
        add(faulty_configuration(error))
        return found
    where = click.get_current_context().find_root().obj
    with built_in_sandbox(config):
        for one in run_checks(config, where=str(Path(where)) if where else "the built-in sandbox"):
            add(one)
    return found


def _print_check(one: "Check") -> None:
    mark, style = ("ok  ", "green") if one.ok else ("BAD ", "bold red")
    printer = out()
    printer.line((mark, style), (f" {one.name}: ", "bold"), one.detail)
    if one.remedy:
        printer.line(f"      {'advice' if one.ok else 'remedy'}: {one.remedy}")
