"""Sync, plan and verify: lock and open the file, then work on each upstream in turn; Ctrl-C ends waits."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import msgspec

from mirror.config import Config, UpstreamConfig
from mirror.errors import IF_RENAMED, ConfigError, Interrupted
from mirror.readable import did_you_mean
from mirror.report import Reporter, Summary
from mirror.store import Store
from mirror.store.faults import damage_explained
from mirror.store.ledger import AHEAD, RequestLedger
from mirror.store.lock import sync_lock
from mirror.store.runs import add_answers, merge_watch_runs
from mirror.sync.crawl import EVERYTHING, Run, Scope, sync_upstream
from mirror.sync.plan import Plan, plan_upstream
from mirror.sync.verify import Difference, verify_upstream
from mirror.times import Clock, utc_now
from mirror.upstream.connect import SANDBOX_URL, ConnectedUpstream, connect, url_of

SANDBOX_SIZE = 1_000


class InterruptibleWait:
    """A wait that reports its reason, counts down, and ends at once when `stop` is set."""

    def __init__(self, stop: threading.Event, report: Reporter) -> None:
        self.stop = stop
        self._report = report

    def __call__(self, seconds: float, why: str) -> None:
        """Wait for a number of seconds; raises Interrupted."""
        left = seconds
        while left > 0 and not self.stop.is_set():
            self._report.waiting(left, why)
            self.stop.wait(min(left, 1.0))  # a second each, to report what is left
            left -= 1.0
        if self.stop.is_set():
            raise Interrupted("stopped while waiting; the next run resumes from here")


class SyncOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a sync besides the configuration.

    - `names`: the upstreams to sync; empty for all.
    - `full`: list every workspace in full, and repeat checks that were made recently.
    - `may_wait`: wait if the request budget is spent; otherwise the run pauses.
    - `max_requests`: pause after this many requests.
    - `confirm_absence`: mark missing repositories as gone, regardless of their number.
    - `scope`: which parts of a sync to run.
    """

    names: tuple[str, ...] = ()
    full: bool = False
    may_wait: bool = True
    max_requests: int | None = None
    confirm_absence: bool = False
    scope: Scope = EVERYTHING


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds the runs of a process: `report` gets their progress, `stop` ends them once it is set."""

    report: Reporter = msgspec.field(default_factory=Reporter)
    stop: threading.Event = msgspec.field(default_factory=threading.Event)
    clock: Clock = utc_now


def chosen(config: Config, names: Sequence[str]) -> list[UpstreamConfig]:
    """Return the upstreams of these names, or all without names; raises ConfigError for an unknown one."""
    known = {upstream.name: upstream for upstream in config.upstreams}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"unknown upstream {name!r} (configured: {', '.join(known)}){near}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(config.upstreams)


@contextmanager
def built_in_sandbox(config: Config, *, lively: bool = False) -> Iterator[None]:
    """Serve the built-in sandbox, if an upstream of kind sandbox has no address of its own.

    With `lively`, simulated people make changes; these are saved beside the database and replayed at the next
    start. If a sandbox already answers at the default address, it is used instead.
    """
    if not any(upstream.kind == "sandbox" and not upstream.url for upstream in config.upstreams):
        yield
        return
    from mirror.sandbox import Lively, Sandbox, World, running  # noqa: PLC0415 - few upstreams are simulated

    where, world = urlsplit(SANDBOX_URL), World(SANDBOX_SIZE)
    people = Lively(world, journal=Path(f"{config.database}.sandbox"))
    sandbox = Sandbox(world, lively=people.catch_up) if lively else Sandbox(world)
    with ExitStack() as stack:
        with suppress(OSError):  # another process has the port, and is used as the upstream
            stack.enter_context(running(sandbox, host=str(where.hostname), port=int(where.port or 0)))
        yield


def sync_all(config: Config, options: SyncOptions, control: Control) -> list[Summary]:
    """Bring the mirror up to date from each chosen upstream, one after the other.

    Raises ConfigError, StoreLocked and other StoreErrors; errors of an upstream are in its summary. After an
    interrupted run, no other begins.
    """
    summaries = list[Summary]()
    with _runs(config, options, control) as runs:
        for run in runs:
            _prepare_search_index(run, config)
            summaries.append(sync_upstream(run, options.scope))
            _keep_answers(run)
            if summaries[-1].state == "interrupted":
                break  # at once: the index can be finished by the next run
            run.store.finish_search_index()
    return summaries


def _prepare_search_index(run: Run, config: Config) -> None:
    """Mend the search index if it is visibly damaged, and let it have commits or not."""
    if run.store.mend_search_index():
        run.report.note("the search index was damaged, and is rebuilt from the rows")
    run.store.search_commits(wanted=config.search_commits)


def _keep_answers(run: Run) -> None:
    """Add the answers of a run to those of all runs, and merge a watch run that found nothing."""
    with run.store.transaction() as connection:
        add_answers(connection, run.upstream_id, run.budget.answers, at=run.now_text())
        merge_watch_runs(connection, run.upstream_id)


def plan_all(config: Config, options: SyncOptions, control: Control) -> list[Plan]:
    """Estimate the requests of `sync_all`, without waiting; raises what it raises, and UpstreamError."""
    options = msgspec.structs.replace(options, may_wait=False)
    with _runs(config, options, control) as runs:
        return [plan_upstream(run) for run in runs]


def verify_all(
    config: Config, options: SyncOptions, control: Control, *, sample: int | None, repair: bool
) -> tuple[list[Summary], list[Difference]]:
    """Compare mirror and upstreams: `sample` repositories of each, or (None) all.

    With `repair`, the upstream's answer replaces what differs. Raises what `sync_all` raises.
    """
    summaries, findings = list[Summary](), list[Difference]()
    with _runs(config, options, control) as runs:
        for run in runs:
            summary, found = verify_upstream(run, sample=sample, repair=repair, random=Random())
            _keep_answers(run)
            summaries.append(summary)
            findings += found
            if summary.state == "interrupted":
                break
    return summaries, findings


@contextmanager
def _runs(config: Config, options: SyncOptions, control: Control) -> Iterator[Iterator[Run]]:
    """Yield an iterator of a run for each chosen upstream, with the file locked and open for all of them.

    Raises StoreError for any error that a damaged file causes.
    """
    path, mode = Path(config.database), config.mode
    upstreams = chosen(config, options.names)
    with damage_explained(path), sync_lock(path, mode), Store(path, mode) as store, ExitStack() as stack:
        _tell_renamed(store, config, upstreams, control.report)
        wait = InterruptibleWait(control.stop, control.report)
        # Connect all first: an unreadable credential is reported before any request is sent.
        connections = list[ConnectedUpstream]()
        for upstream in upstreams:
            connections.append(
                connect(
                    upstream,
                    ledger=RequestLedger(store, ahead=AHEAD),
                    wait=wait,
                    clock=control.clock,
                    may_wait=options.may_wait,
                    max_requests=options.max_requests,
                    timer=time.monotonic,
                )
            )
            stack.callback(connections[-1].upstream.close)
            stack.callback(connections[-1].budget.close)
        yield (
            Run(
                upstream,
                connection.upstream,
                connection.budget,
                store,
                url=url_of(upstream),
                clock=control.clock,
                stop=control.stop,
                report=control.report,
                full=options.full,
                confirm_absence=options.confirm_absence,
            )
            for upstream, connection in zip(upstreams, connections, strict=True)
        )


def _tell_renamed(
    store: Store, config: Config, upstreams: Sequence[UpstreamConfig], report: Reporter
) -> None:
    """Say that an upstream of which nothing is held yet has the address of one without a configuration."""
    held = dict(
        store.rows("SELECT name, url FROM upstreams WHERE id IN (SELECT upstream_id FROM repositories)")
    )
    for name in held.keys() - {one.name for one in config.upstreams}:
        for upstream in upstreams:
            if upstream.name not in held and url_of(upstream) == held[name]:
                report.note(
                    f"{upstream.name} is new, and has the address of {name}, which the configuration does not"
                    f" name: {IF_RENAMED}"
                )
