"""One sitting of syncing: the file locked and opened, every upstream in turn, waits that can be stopped."""

import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import msgspec

from mirror.config import Config, UpstreamConfig
from mirror.credentials import read_credential
from mirror.errors import ConfigError, Interrupted
from mirror.report import Reporter, Silent, Summary
from mirror.sandbox import Sandbox, World, running
from mirror.store import Store
from mirror.store.files import damage_explained, sync_lock
from mirror.store.ledger import RequestLedger
from mirror.store.runs import add_answers, merge_watch_runs
from mirror.sync.crawl import Run, sync_upstream
from mirror.sync.plan import Plan, plan_upstream
from mirror.sync.scope import EVERYTHING, Part
from mirror.sync.verify import Finding, verify_upstream
from mirror.times import Clock, utc_now
from mirror.upstream.budget import limit_in_force
from mirror.upstream.connect import SANDBOX_URL, Connection, connect, default_limit, url_of

SANDBOX_SIZE = 1_000


class Patience:
    """Waiting that tells why, counts down, and ends at once when the process is asked to stop."""

    def __init__(self, stop: threading.Event, report: Reporter) -> None:
        self.stop = stop
        self._report = report

    def wait(self, seconds: float, why: str) -> None:
        """Wait so many seconds; raises Interrupted as soon as `stop` is set."""
        left = seconds
        while left > 0 and not self.stop.is_set():
            self._report.waiting(left, why)
            self.stop.wait(min(left, 1.0))
            left -= 1.0
        if self.stop.is_set():
            raise Interrupted("stopped while waiting; the place is kept")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked of a sync beyond the configuration; no `names` means every upstream."""

    names: tuple[str, ...] = ()
    full: bool = False
    may_wait: bool = True
    max_requests: int | None = None
    confirm_absence: bool = False
    part: Part = EVERYTHING


def chosen(config: Config, names: Sequence[str]) -> list[UpstreamConfig]:
    """Pick the upstreams that are meant; raises ConfigError for a name that is none."""
    known = {upstream.name: upstream for upstream in config.upstreams}
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown upstream {name!r} (configured: {', '.join(known)})")
    return [known[name] for name in names] if names else list(config.upstreams)


@contextmanager
def built_in_sandbox(config: Config) -> Iterator[None]:
    """Serve the built-in sandbox while an upstream of kind sandbox names no address of its own.

    One that answers at the default address already is used as it is.
    """
    if not any(upstream.kind == "sandbox" and not upstream.url for upstream in config.upstreams):
        yield
        return
    where = urlsplit(SANDBOX_URL)
    with ExitStack() as stack:
        with suppress(OSError):  # whoever has the port is asked as an upstream, and known by its answers
            stack.enter_context(
                running(Sandbox(World(SANDBOX_SIZE)), host=str(where.hostname), port=int(where.port or 0))
            )
        yield


def sync_all(
    config: Config, wishes: Wishes, *, report: Reporter, stop: threading.Event, clock: Clock = utc_now
) -> list[Summary]:
    """Bring the mirror up to date from every upstream that is meant, one after the other.

    Raises ConfigError, StoreLocked and other StoreErrors; an upstream's troubles are in its summary. An
    interrupted run is the last one.
    """
    summaries = list[Summary]()
    with _explained(config), closing(_runs(config, wishes, report=report, stop=stop, clock=clock)) as runs:
        for run in runs:
            summaries.append(sync_upstream(run, wishes.part))
            _keep_answers(run)
            if summaries[-1].state == "interrupted":
                break
            run.store.finish_search_index()
    return summaries


def _keep_answers(run: Run) -> None:
    """Add how the upstream answered to what is known of all runs, and a look that found nothing to others."""
    with run.store.transaction() as connection:
        add_answers(connection, run.upstream_id, run.budget.answers, at=run.now_text())
        merge_watch_runs(connection, run.upstream_id)


def plan_all(config: Config, wishes: Wishes, *, clock: Clock = utc_now) -> list[Plan]:
    """Work out what `sync_all` would ask, without waiting; raises what it raises, and UpstreamError."""
    wishes = msgspec.structs.replace(wishes, may_wait=False)
    nobody = threading.Event()
    with (
        _explained(config),
        closing(_runs(config, wishes, report=Silent(), stop=nobody, clock=clock)) as runs,
    ):
        return [plan_upstream(run) for run in runs]


def verify_all(
    config: Config,
    wishes: Wishes,
    *,
    sample: int | None,
    repair: bool,
    report: Reporter,
    stop: threading.Event,
    clock: Clock = utc_now,
) -> tuple[list[Summary], list[Finding]]:
    """Compare mirror and upstreams, `sample` repositories of each or all; raises what `sync_all` raises."""
    summaries, findings = list[Summary](), list[Finding]()
    with _explained(config), closing(_runs(config, wishes, report=report, stop=stop, clock=clock)) as runs:
        for run in runs:
            summary, found = verify_upstream(run, sample=sample, repair=repair, random=Random())
            _keep_answers(run)
            summaries.append(summary)
            findings += found
            if summary.state == "interrupted":
                break
    return summaries, findings


def _explained(config: Config) -> AbstractContextManager[None]:
    """Raise StoreError for whatever goes wrong because the file is damaged."""
    return damage_explained(Path(config.database))


def _runs(
    config: Config, wishes: Wishes, *, report: Reporter, stop: threading.Event, clock: Clock
) -> Generator[Run]:
    """Yield a run for each upstream that is meant, with the file locked and open for all of them.

    Whoever takes them closes this, whatever happens: then connections, file and lock are let go.
    """
    path = Path(config.database)
    upstreams = chosen(config, wishes.names)
    mode = config.mode
    with sync_lock(path, mode), Store(path, mode) as store, ExitStack() as stack:
        patience = Patience(stop, report)
        # All of them first: a credential that cannot be read is told before anything is spent.
        connections = list[Connection]()
        for upstream in upstreams:
            connections.append(_connect(upstream, store, patience, wishes, clock))
            stack.callback(connections[-1].upstream.close)
        for upstream, connection in zip(upstreams, connections, strict=True):
            yield Run(
                upstream,
                connection.upstream,
                connection.budget,
                store,
                url=url_of(upstream),
                clock=clock,
                stop=stop,
                report=report,
                full=wishes.full,
                confirm_absence=wishes.confirm_absence,
            )


def _connect(
    upstream: UpstreamConfig, store: Store, patience: Patience, wishes: Wishes, clock: Clock
) -> Connection:
    return connect(
        upstream,
        ledger=RequestLedger(store),
        wait=patience.wait,
        clock=clock,
        may_wait=wishes.may_wait,
        max_requests=wishes.max_requests,
        timer=time.monotonic,
    )


def accounts(config: Config, connection: sqlite3.Connection) -> dict[str, tuple[str, int | None]]:
    """Map each upstream to its bucket in the request ledger and the hourly limit in force.

    An upstream whose credential cannot be read here (another user's environment) is left out.
    """
    found = dict[str, tuple[str, int | None]]()
    for upstream in config.upstreams:
        try:
            credential = read_credential(upstream.credential, os.environ)
        except ConfigError:
            continue
        bucket = f"{credential.bucket}@{urlsplit(url_of(upstream)).netloc}"
        told = connection.execute(
            "SELECT requests_per_hour FROM request_limits WHERE bucket = ?", (bucket,)
        ).fetchone()
        limit = limit_in_force(
            told=told[0] if told else None,
            ours=upstream.requests_per_hour,
            default=default_limit(upstream, credential),
        )
        found[upstream.name] = (bucket, limit)
    return found
