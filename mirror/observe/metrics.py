"""Metrics in Prometheus' text format: from the file for all processes, and the answer times of this server.

A sync may run in another process, so its figures are read from the file at each scrape. Counts of whole
tables are cached: the longer counting took, the longer they are valid. No label names a repository.

The processes of one server share the memory of `SharedNumbers` and `SharedText`, which is made before they
are forked. Each counts in a part of its own, so none waits for a lock, and a killed one leaves none behind.
The process that replaces it continues in the same part.
"""

import mmap
import sqlite3
import struct
import time
import zlib
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from mirror.queries.crawl import standing
from mirror.queries.status import UpstreamStatus, read_status
from mirror.queries.visibility import OPERATOR
from mirror.store.compaction import dropped_changes
from mirror.store.cursors import Cursors
from mirror.store.rows import fetch, fetch_value
from mirror.times import Clock, from_text, utc_now

MOST_ROWS = 400  # keys of each process
MOST_COLUMNS = 16  # numbers of each key
# The longest key, in bytes. Longer keys are not counted, nor are those after MOST_ROWS.
LONGEST_KEY = 246

_NUMBERS = 8 * MOST_COLUMNS
# The bytes of a row: its numbers, the length of its key, the key. It is a multiple of eight.
_ROW = _NUMBERS + 8 + 248

_LENGTH = struct.Struct("<q")

PREFIX = "bitbucket_mirror_"
WEBHOOK = "webhook"  # what `Latencies.answered` calls a webhook
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# The column of the sum, after those of the buckets. The last bucket has no bound.
SUM = len(BUCKETS) + 1

# A count stays valid for this many times the time it took, so that counting takes at most a fiftieth of the
# time, however large the file is.
KEPT_TIMES = 50

Limits = dict[str, tuple[str, int | None]]


class SharedNumbers:
    """Rows of numbers by key, counted by several processes. Each of them reads the sums of all."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._bytes = memoryview(mmap.mmap(-1, processes * MOST_ROWS * _ROW))
        self._numbers = self._bytes.cast("d")
        self.count_in(0)

    def count_in(self, part: int) -> None:
        """Count in a part from now on, on top of the numbers there."""
        self._rows = dict(self._used(part))
        self._next = part * MOST_ROWS + len(self._rows)
        self._end = (part + 1) * MOST_ROWS

    def add(self, key: bytes, column: int, amount: float = 1.0) -> None:
        """Add to a number of this process."""
        row = self._rows.get(key)
        if row is None:
            row = self._new_row(key)
        if row >= 0:
            self._numbers[row * _ROW // 8 + column] += amount

    def sums(self) -> dict[bytes, list[float]]:
        """Return the numbers of all processes together, by key."""
        found = dict[bytes, list[float]]()
        for part in range(self._processes):
            for key, row in self._used(part):
                start = row * _ROW // 8
                others = found.get(key, [0.0] * MOST_COLUMNS)
                own = self._numbers[start : start + MOST_COLUMNS]
                found[key] = [one + other for one, other in zip(others, own, strict=True)]
        return found

    def _used(self, part: int) -> list[tuple[bytes, int]]:
        """Return the keys of a part with their rows."""
        found = list[tuple[bytes, int]]()
        for row in range(part * MOST_ROWS, (part + 1) * MOST_ROWS):
            at = row * _ROW + _NUMBERS
            (length,) = _LENGTH.unpack_from(self._bytes, at)
            if not length:
                break
            found.append((bytes(self._bytes[at + 8 : at + 8 + length]), row))
        return found

    def _new_row(self, key: bytes) -> int:
        """Begin a row; return -1 if there is no room."""
        if len(key) > LONGEST_KEY or self._next == self._end:
            return -1
        at = self._next * _ROW + _NUMBERS
        self._bytes[at + 8 : at + 8 + len(key)] = key
        _LENGTH.pack_into(self._bytes, at, len(key))  # last: with it the row counts for other processes
        self._rows[key] = self._next
        self._next += 1
        return self._rows[key]


class SharedText:
    """A text that is valid until a time of the monotonic clock, which all processes of a machine share."""

    # When it expires, its length, and its checksum: a reader may see a text that is half written.
    _HEAD = struct.Struct("<dII")

    def __init__(self, most: int = 1_000_000) -> None:
        self._memory = memoryview(mmap.mmap(-1, self._HEAD.size + most))

    def write(self, text: bytes, until: float) -> None:
        """Keep a text, unless it is too long."""
        if len(text) <= len(self._memory) - self._HEAD.size:
            head = self._HEAD.pack(until, len(text), zlib.crc32(text))
            self._memory[: len(head) + len(text)] = head + text

    def read(self, now: float) -> bytes | None:
        """Return the text; None if there is none, if it has expired, or while another one is written."""
        until, length, checksum = self._HEAD.unpack_from(self._memory)
        text = bytes(self._memory[self._HEAD.size : self._HEAD.size + length])
        return text if now < until and zlib.crc32(text) == checksum else None


class Latencies:
    """The response times of a server, by kind of request and class of status.

    All processes share the memory, which is made before they are forked. Each counts in its own part.
    """

    def __init__(self, processes: int = 1) -> None:
        self._seconds = SharedNumbers(processes)
        self._webhooks = SharedNumbers(processes)

    def count_in(self, part: int) -> None:
        """Count as the process with a number, from 0."""
        self._seconds.count_in(part)
        self._webhooks.count_in(part)

    def answered(self, what: str, status: int, seconds: float) -> None:
        """Count an answer."""
        key = f"{what} {status // 100}xx".encode()
        self._seconds.add(key, bisect_left(BUCKETS, seconds))
        self._seconds.add(key, SUM, seconds)

    def webhook(self, upstream: str, outcome: str) -> None:
        """Count a webhook."""
        self._webhooks.add(f"{upstream} {outcome}".encode(), 0)

    def text(self, *, with_webhooks: bool) -> bytes:
        """Write the numbers of all processes in Prometheus' format, with or without those of webhooks."""
        seconds = HistogramMetricFamily(
            PREFIX + "answer_seconds",
            "Time from a request to the end of its answer.",
            labels=("what", "status"),
        )
        for key, numbers in self._seconds.sums().items():
            labels = key.decode().split(" ")
            if labels[0] == WEBHOOK and not with_webhooks:
                continue
            counts = list(accumulate(numbers[:SUM]))
            bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
            seconds.add_metric(labels, list(zip(bounds, counts, strict=True)), numbers[SUM])
        webhooks = _counter("webhooks", "Webhooks by outcome.", "upstream", "outcome")
        for key, numbers in self._webhooks.sums().items():
            webhooks.add_metric(key.decode().split(" ", 1), numbers[0])
        return _text([seconds, webhooks] if with_webhooks else [seconds])


class FileMetrics:
    """The metrics of a mirror file. `text` reads it at each scrape."""

    def __init__(self, clock: Clock = utc_now, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stopwatch = stopwatch
        self._counts = SharedText()  # else a counter could fall when another process answers

    def text(
        self,
        connection: sqlite3.Connection,
        limits: Limits | None = None,
        *,
        configured: Collection[str] = (),
        syncing: bool | None = None,
    ) -> bytes:
        """Read the file and write its metrics in Prometheus' format.

        :param limits: maps each upstream to its bucket in the request ledger and its hourly limit.
        :param configured: the upstreams that are synced; by default all.
        :param syncing: whether a process holds the lock of the file; None if that is unknown.
        """
        now = self._clock()
        began = self._stopwatch()
        counts = self._counts.read(began)
        if counts is None:
            statuses = read_status(connection, now, limits)
            counts = _text([*_tables(connection), *_standing(statuses, configured)])
            ended = self._stopwatch()
            self._counts.write(counts, ended + (ended - began) * KEPT_TIMES)
        return _text([*_runs(connection), *_progress(connection, syncing=syncing)]) + counts


def _text(families: list[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families:
    """A collector that returns given families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def _runs(connection: sqlite3.Connection) -> Iterator[Metric]:
    """Yield the requests, times and outcomes of runs."""
    columns = ("requests", "git_requests", "retries", "slept_seconds")
    sums = ", ".join(f"sum(s.{column})" for column in columns)
    asked = f"SELECT u.name, {sums} FROM sync_runs s JOIN upstreams u ON u.id = s.upstream_id GROUP BY u.id"
    requests = _counter("upstream_requests", "Requests sent to an upstream.", "upstream", "by")
    retries = _counter("upstream_retries", "Requests that were retried.", "upstream")
    slept = _counter(
        "upstream_sleep_seconds", "Time spent waiting for budgets and busy upstreams.", "upstream"
    )
    for name, api, git, again, seconds in fetch(connection, asked):
        requests.add_metric((name, "api"), api)
        requests.add_metric((name, "git"), git)
        retries.add_metric((name,), again)
        slept.add_metric((name,), seconds)
    runs = _counter("runs", "Runs by kind and outcome, without watch runs.", "upstream", "kind", "state")
    took = _counter("run_seconds", "Time that runs took, including waits.", "upstream", "kind", "state")
    # Counters must never fall: a run counts when it has ended, for 0 s if the clock was set back meanwhile.
    for name, kind, state, count, seconds in connection.execute(
        """SELECT u.name, s.kind, s.state, count(*),
                  coalesce(sum(max(0, julianday(s.finished_at) - julianday(s.started_at))), 0) * 86400
           FROM sync_runs s JOIN upstreams u ON u.id = s.upstream_id
           WHERE s.kind <> 'watch' AND s.state <> 'running' GROUP BY u.id, s.kind, s.state"""
    ):
        runs.add_metric((name, kind, state), count)
        took.add_metric((name, kind, state), seconds)
    yield from (requests, retries, slept, runs, took)
    yield _answers(connection)


def _answers(connection: sqlite3.Connection) -> Any:
    answers = _counter("upstream_answers", "Answers of an upstream by status.", "upstream", "status")
    for upstream_id, name in fetch(connection, "SELECT id, name FROM upstreams"):
        for status, count in (Cursors(connection, upstream_id).answers.read() or {}).items():
            answers.add_metric((name, str(status)), count)
    return answers


def _progress(connection: sqlite3.Connection, *, syncing: bool | None) -> Iterator[Metric]:
    """Yield the progress of the sync of each upstream, as pages and `mirror status` show it."""
    running = _gauge("sync_running", "1 while a sync of the upstream runs, else 0.", "upstream")
    done = _gauge("sync_progress_done", "Work done in the current phase of a sync.", "upstream", "phase")
    total = _gauge("sync_progress_total", "All work of the current phase.", "upstream", "phase")
    ends = _gauge("sync_end_timestamp_seconds", "When the sync is expected to be done.", "upstream")
    for one in standing(connection, OPERATOR, syncing=syncing, with_progress=True):
        running.add_metric((one.name,), int(one.run_state == "running"))
        if one.progress is None:
            continue
        done.add_metric((one.name, one.progress.what), one.progress.done)
        if one.progress.total is not None:
            total.add_metric((one.name, one.progress.what), one.progress.total)
        if one.progress.done_at:
            ends.add_metric((one.name,), from_text(one.progress.done_at).timestamp())
    yield from (running, done, total, ends)


def _tables(connection: sqlite3.Connection) -> Iterator[Metric]:
    """Yield how many rows there are, and how many changes were seen of each kind."""
    rows = _gauge("rows", "Rows of the mirror.", "table")
    for table in ("repositories", "users", "branches", "tags", "changes"):
        rows.add_metric((table,), fetch_value(connection, f"SELECT count(*) FROM {table}"))
    changes = _counter("changes", "Changes seen, by kind.", "kind")
    counts = Counts(dropped_changes(connection))
    counts.update(dict(connection.execute("SELECT kind, count(*) FROM changes GROUP BY kind").fetchall()))
    for kind, count in sorted(counts.items()):
        changes.add_metric((kind,), count)
    yield from (rows, changes)


def _standing(statuses: Iterable[UpstreamStatus], configured: Collection[str]) -> Iterator[Metric]:
    """Yield the state of each upstream's mirror: age, budget, pending work; `configured` as in `text`."""
    success = _gauge("last_success_timestamp_seconds", "When the last complete sync ended.", "upstream")
    limit = _gauge("budget_limit", "Requests allowed per hour.", "upstream")
    used = _gauge("budget_used", "Requests sent in the last hour.", "upstream")
    left = _gauge("budget_left", "Requests left for this hour.", "upstream")
    waiting = _gauge("refs_waiting", "Repositories whose branches and tags wait to be read.", "upstream")
    unread = _gauge("refs_unread", "Repositories whose branches and tags were never read.", "upstream")
    alive = _gauge("repositories", "Repositories, by whether they are gone.", "upstream", "state")
    failures = _gauge("failures_waiting", "Failures that are retried.", "upstream", "kind")
    accepted = _gauge("failures_accepted", "Failures that are accepted.", "upstream", "kind")
    # A summary, since only these may have the label `quantile`. The sum of all ages is of no use.
    fresh = Metric(PREFIX + "freshness_seconds", "Age of the data of repositories.", "summary")
    for status in statuses:
        labels = (status.name,)
        # The file keeps upstreams that are no longer configured. As for `/-/health`, no sync is missed.
        if status.last_complete_sync and (not configured or status.name in configured):
            success.add_metric(labels, from_text(status.last_complete_sync).timestamp())
        if status.budget.limit is not None and status.budget.left is not None:
            limit.add_metric(labels, status.budget.limit)
            left.add_metric(labels, status.budget.left)
        used.add_metric(labels, status.budget.used)
        waiting.add_metric(labels, status.refs_waiting)
        unread.add_metric(labels, status.refs_unread)
        alive.add_metric((status.name, "alive"), status.repositories)
        alive.add_metric((status.name, "gone"), status.gone)
        for gauge, is_accepted in ((failures, False), (accepted, True)):
            kinds = Counts(each["kind"] for each in status.failures if each["accepted"] == is_accepted)
            for kind, count in sorted(kinds.items()):
                gauge.add_metric((status.name, kind), count)
        for quantile, age in status.listed_seconds.items():
            fresh.add_sample(fresh.name, {"upstream": status.name, "quantile": quantile}, age)
        fresh.add_sample(f"{fresh.name}_count", {"upstream": status.name}, status.repositories)
    yield from (success, limit, used, left, waiting, unread, alive, failures, accepted, fresh)


def _gauge(name: str, text: str, *labels: str) -> Any:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> Any:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)
