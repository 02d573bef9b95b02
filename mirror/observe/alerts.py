"""Alerts: sent when a sync succeeds, fails, recovers, or is stopped by the absence brake.

A failure is reported when it begins and when it is over, not after each run. Whether the run before failed
is read from the file, so it makes no difference whether the service or cron starts the runs.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from mirror.config import AlertConfig, AlertEvent, Config
from mirror.config_checks import address_complaint
from mirror.credentials import read_secret, redacting
from mirror.errors import ConfigError, StoreError
from mirror.observe.logs import run_line, secrets_of
from mirror.queries.changes import UNEXPECTED, lines_of_run
from mirror.report import Summary
from mirror.store.files import open_reader, read_if_possible
from mirror.store.rows import fetch_value
from mirror.times import Clock, to_text, utc_now

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from mirror.observe.delivery import Courier

ENDED = ("complete", "incomplete")
LISTINGS = ("full", "incremental")
UNLISTED = ("workspace", "workspaces", "page")  # kinds of failures that may hide whole repositories

MOST_LINES = 10  # the most changes that one alert names

KILL_SECONDS = 0.3  # seconds to wait for a command that was killed

LONGEST = 40.0  # the longest time, in seconds, that a command waits at its end for its alerts; see `delivery`


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON of an alert. `upstream` is "" for the whole mirror. Chat programs show the member `text`."""

    event: AlertEvent
    upstream: str
    at: str
    text: str
    kind: str = ""
    state: str = ""
    error: str | None = None


class Receiver(NamedTuple):
    """Who gets alerts: a command, or an address that takes pings or JSON; `name` is for the log."""

    name: str
    command: tuple[str, ...]
    address: str
    is_pinged: bool

    def deliver(self, alert: Alert, stop: threading.Event) -> None:
        """Deliver an alert, or end early when `stop` is set; raises NotDelivered."""
        from mirror.observe.delivery import call, ping, post  # noqa: PLC0415 - see `courier_to`

        if self.command:
            call(self.command, msgspec.json.encode(alert), stop=stop)
        elif self.is_pinged:
            ping(self.address, alert.text, failed=alert.event in ("failure", "brake"))
        else:
            post(self.address, msgspec.json.encode(alert))


class Alerts:
    """The alerts of a configuration; raises ConfigError for an address that cannot be read.

    Separate threads deliver them, so no receiver delays a sync. An alert that cannot be delivered is logged.
    `close` waits for the deliveries.
    """

    def __init__(self, config: Config, *, clock: Clock = utc_now) -> None:
        self._path = Path(config.database)
        self._clock = clock
        self._receivers = [
            (alert.events, receiver_of(f"alert {number}", alert))
            for number, alert in enumerate(config.alerts, 1)
        ]
        self._couriers = {receiver: courier_to(receiver) for _, receiver in self._receivers}
        addresses = [receiver.address for _, receiver in self._receivers if receiver.address]  # are secrets
        self._redact = redacting([*secrets_of(config), *addresses])
        self._troubled = set[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, seconds: float = LONGEST) -> None:
        """Wait up to `seconds` for deliveries; longer ones are cancelled and logged."""
        until = time.monotonic() + seconds
        late = [courier for courier in self._couriers.values() if not courier.finish(until)]
        # All are told before any is waited for, so that commands that hang are killed at the same time.
        for courier in late:
            courier.give_up()
        for courier in late:
            courier.finish(until + KILL_SECONDS)

    def continue_from(self, before: Self) -> None:
        """Know the troubles that the alerts of the configuration before this one reported.

        What is not delivered yet is sent first, also to receivers that are gone.
        """
        self._troubled = before._troubled
        self._couriers |= before._couriers

    def send_for(self, summary: Summary) -> None:
        """Send the alerts for a run."""
        if not self._receivers:
            return
        name = summary.upstream
        failed_before = name in self._troubled or self._failed_before(summary)
        for event in events_of(summary, failed_before=failed_before):
            text = _brake_text(summary) if event == "brake" else run_line(summary)
            self._send(event, name, text, kind=summary.kind, state=summary.state, error=summary.error)
            if event == "recovery":
                self._troubled.discard(name)
        self._send_unexpected(summary)

    def _send_unexpected(self, summary: Summary) -> None:
        """Send the unexpected changes of a run: one alert for each kind."""
        wanted = {event for events, _ in self._receivers for event in events if event in UNEXPECTED}
        if not wanted:
            return
        try:
            with closing(open_reader(self._path)) as connection:
                for event in sorted(wanted):
                    lines = lines_of_run(connection, event, summary.upstream, summary.changes, summary.forced)
                    if lines:
                        self._send(event, summary.upstream, _first_lines(lines), kind=summary.kind)
        except (StoreError, sqlite3.Error) as error:
            log.warning("unexpected changes cannot be read for alerts: %s", error)

    def send_failure(self, name: str, text: str) -> None:
        """Send a failure once: a job that could not start, or (`name` "") a mirror that is unwell."""
        if name not in self._troubled:
            self._troubled.add(name)
            self._send("failure", name, text)

    def send_recovery(self, name: str = "") -> None:
        """Send a recovery if a failure was sent before."""
        if name in self._troubled:
            self._troubled.discard(name)
            self._send("recovery", name, f"{name} succeeded again" if name else "the mirror is well again")

    def _failed_before(self, summary: Summary) -> bool:
        """Return whether the last run before this one had failed."""
        sql = """SELECT state FROM sync_runs
            WHERE id < ? AND state IN ('complete', 'incomplete', 'failed')
            AND upstream_id = (SELECT id FROM upstreams WHERE name = ?)
            AND (state = 'failed' OR requests + git_requests > 0) ORDER BY id DESC LIMIT 1"""
        values = (summary.run_id, summary.upstream)
        return read_if_possible(self._path, lambda file: fetch_value(file, sql, values)) == "failed"

    def _send(
        self,
        event: AlertEvent,
        name: str,
        text: str,
        *,
        kind: str = "",
        state: str = "",
        error: str | None = None,
    ) -> None:
        alert = Alert(
            event=event,
            upstream=name,
            at=to_text(self._clock()),
            text=self._redact(text),
            kind=kind,
            state=state,
            error=error and self._redact(error),
        )
        for events, receiver in self._receivers:
            if event in events:
                self._couriers[receiver].send(alert)


def events_of(summary: Summary, *, failed_before: bool) -> list[AlertEvent]:
    """Return the events of a run.

    A workspace or page that could not be listed is a failure, reported once; a single repository is not.
    """
    found = list[AlertEvent]()
    # A run that sent no request proves nothing.
    asked = summary.counts.requests + summary.counts.git_requests > 0
    unlisted = [failure.attempts for failure in summary.failures if failure.kind in UNLISTED]
    listed = not unlisted and not any(failure.kind in UNLISTED for failure in summary.waiting)
    if (summary.state == "failed" and not failed_before) or 1 in unlisted:
        found.append("failure")
    if summary.state in ENDED and asked and failed_before:
        found.append("recovery")
    if summary.state in ENDED and asked and summary.kind in LISTINGS and listed:
        found.append("success")
    if any(failure.kind == "absence" and failure.attempts == 1 for failure in summary.failures):
        found.append("brake")
    return found


def receiver_of(name: str, alert: AlertConfig) -> Receiver:
    """Return who gets an alert; raises ConfigError."""
    address = "" if alert.command else address_of(alert.ping or alert.url)
    return Receiver(name, alert.command, address, is_pinged=bool(alert.ping))


def courier_to(receiver: Receiver) -> "Courier[Alert]":
    """Make the courier of a receiver."""
    # Slow to import, but later it may be too late: an alert may be about too few open files.
    from mirror.observe.delivery import Courier  # noqa: PLC0415

    return Courier(receiver.name, receiver.deliver)


def address_of(text: str) -> str:
    """Return an address, which may stand in the environment or a file; raises ConfigError."""
    address = read_secret(text) if text.startswith(("env:", "file:")) else text
    if complaint := address_complaint(address):
        named = text if address != text else "address"
        raise ConfigError(f"alert {named}: what it holds {complaint}")
    return address


def _first_lines(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - MOST_LINES:,} more" if len(lines) > MOST_LINES else ""
    return "; ".join(lines[:MOST_LINES]) + more


def _brake_text(summary: Summary) -> str:
    return "; ".join(failure.error for failure in summary.failures if failure.kind == "absence")
