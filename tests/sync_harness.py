"""A sandbox and a mirror of it, for tests of the crawl: synced with a network or without, compared by row."""

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
from prepared_files import MirrorOf, copy_empty, long_port
from sandbox_comparison import REPOSITORY_COLUMNS, differences

from mirror.config import Duration, Retry, UpstreamConfig
from mirror.report import Reporter, Summary
from mirror.sandbox import TOKEN, Principal, RunningSandbox, Sandbox, World, running
from mirror.sandbox.exchange import Request, SandboxResponse, Transfer
from mirror.store import Store
from mirror.store.ledger import AHEAD, RequestLedger
from mirror.sync.crawl import Run, sync_upstream
from mirror.sync.plan import Plan, plan_upstream
from mirror.sync.verify import Difference, verify_upstream
from mirror.upstream.connect import connect, url_of

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECRET = "sandbox"
HASTY = Retry(attempts=2, first_delay=Duration(0.01), max_delay=Duration(0.02))


class Clock:
    """A clock that waits move forward, and each reading too, so that no two readings are equal."""

    def __init__(self) -> None:
        self.moment = START
        self.waits = list[str]()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Tell the time."""
        with self._lock:
            self.moment += timedelta(microseconds=1)
            return self.moment

    def wait(self, seconds: float, why: str = "") -> None:
        """Let time pass at once."""
        with self._lock:
            self.moment += timedelta(seconds=seconds)
            self.waits.append(why)


class Notes(Reporter):
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, text: str) -> None:
        """Remember it."""
        self.notes.append(text)


class ShortPages(httpx.HTTPTransport):
    """Asks for short pages, so that a few rows make many of them."""

    def __init__(self, length: int) -> None:
        super().__init__(verify=False)  # reading certificates takes longer than a sync
        self._length = length

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask for pages of another length."""
        url = str(request.url).replace("pagelen=100", f"pagelen={self._length}")
        request.url = httpx.URL(url)
        return super().handle_request(request)


class Rewritten(ShortPages):
    """Answers what a function makes of the path and the answer."""

    def __init__(self, change: Callable[[str, Any], Any]) -> None:
        super().__init__(100)
        self.change = change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and rewrite the answer."""
        answer = super().handle_request(request)
        answer.read()
        return httpx.Response(answer.status_code, json=self.change(request.url.path, answer.json()))


class WithoutNetwork(httpx.BaseTransport):
    """Asks a sandbox without a server, which takes half the time; `page_length` is that of `ShortPages`."""

    def __init__(self, answer: Callable[[Request], SandboxResponse], page_length: int = 100) -> None:
        self._answer, self._length = answer, page_length
        self._turn = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass it on as a server would, one at a time."""
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        query = query.replace("pagelen=100", f"pagelen={self._length}")
        with self._turn:
            answer = self._answer(Request(request.method, path, query, dict(request.headers), request.read()))
        assert answer.delivery is Transfer.WHOLE, "only a network can break an answer"
        assert not answer.delay, "only a network can be slow"
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return httpx.Response(answer.status, headers=headers, content=answer.body)


class Edited(httpx.HTTPTransport):
    """Lets a test edit the JSON of answers: `edit` gets the requested path and the decoded body."""

    def __init__(self, edit: Callable[[str, Any], Any]) -> None:
        super().__init__(verify=False)  # reading certificates takes longer than a sync
        self._edit = edit

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and answer what the test makes of it."""
        answer = super().handle_request(request)
        answer.read()
        if not answer.is_success:
            return answer
        return httpx.Response(answer.status_code, json=self._edit(request.url.path, answer.json()))


class SyncHarness:
    """A mirror file and the upstream it is synced from; `settings` are those of the configuration."""

    def __init__(
        self,
        origin: str,
        path: Path,
        clock: Clock,
        *,
        page_length: int | None = None,
        secret: str | None = SECRET,
        **settings: Any,
    ) -> None:
        self.origin, self.path, self.clock = origin, path, clock
        self.secret, self.page_length = secret, page_length
        plain: dict[str, Any] = {"name": "here", "kind": "sandbox", "url": f"{origin}/2.0", "retry": HASTY}
        plain |= {"concurrency": 1, "credential": "env:SECRET" if secret else None}
        self.config = UpstreamConfig(**plain | settings)
        self.notes = list[str]()
        self.open_store: Callable[[Path], Store] = Store
        self.transport: httpx.BaseTransport | None = ShortPages(page_length) if page_length else None

    def sync(
        self,
        *,
        full: bool = False,
        confirm_absence: bool = False,
        may_wait: bool = True,
        max_requests: int | None = None,
        stop: threading.Event | None = None,
        later: float = 900,
    ) -> Summary:
        """Sync once, `later` seconds after whatever was before."""
        with self.run(
            full=full,
            confirm_absence=confirm_absence,
            may_wait=may_wait,
            max_requests=max_requests,
            stop=stop,
            later=later,
        ) as run:
            return sync_upstream(run)

    def plan(self, *, may_wait: bool = False) -> Plan:
        """Work out what a sync would ask."""
        with self.run(may_wait=may_wait) as run:
            return plan_upstream(run)

    def verify(
        self, *, sample: int | None = None, repair: bool = False, max_requests: int | None = None
    ) -> tuple[Summary, list[Difference]]:
        """Hold the mirror against the upstream."""
        with self.run(max_requests=max_requests) as run:
            return verify_upstream(run, sample=sample, repair=repair, random=Random(0))

    @contextmanager
    def run(
        self,
        *,
        full: bool = False,
        confirm_absence: bool = False,
        may_wait: bool = True,
        max_requests: int | None = None,
        stop: threading.Event | None = None,
        later: float = 900,
        report: Notes | None = None,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> Iterator[Run]:
        """Open file and upstream for a run."""
        self.clock.wait(later)
        report = report or Notes()
        self.notes = report.notes
        if self.open_store is Store and not self.path.exists():
            copy_empty(self.path)
        with self.open_store(self.path) as store:
            connection = connect(
                self.config,
                ledger=RequestLedger(store, ahead=AHEAD),
                wait=self.clock.wait,
                clock=self.clock.now,
                may_wait=may_wait,
                max_requests=max_requests,
                random=Random(0),
                environ={"SECRET": self.secret or ""},
                transport=self.transport,
            )
            with closing(connection.upstream), closing(connection.budget):
                yield Run(
                    self.config,
                    connection.upstream,
                    connection.budget,
                    store,
                    url=url_of(self.config),
                    clock=self.clock.now,
                    stop=stop or threading.Event(),
                    report=report,
                    full=full,
                    confirm_absence=confirm_absence,
                    stopwatch=stopwatch,
                )

    @contextmanager
    def reading(self) -> Iterator[Callable[..., list[Any]]]:
        """Read from the mirror several times: SQLite reads the schema whenever a file is opened."""
        with closing(sqlite3.connect(self.path)) as connection:
            yield lambda sql, *values: connection.execute(sql, values).fetchall()

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Read from the mirror."""
        with self.reading() as rows:
            return rows(sql, *values)

    def refs_path(self, name: str) -> str:
        """Return a pattern for the path of a repository's refs, as the client asks for it."""
        uuid = self.one("SELECT uuid FROM repositories WHERE full_name = ?", name)
        return f"*{uuid.strip('{}')}*/refs"

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Edit the mirror file by hand."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            yield connection

    def one(self, sql: str, *values: Any) -> Any:
        """Read one value from the mirror."""
        return self.rows(sql, *values)[0][0]

    def changes(self) -> list[tuple[str, str | None, str | None, str | None, str | None]]:
        """Read what was seen to change: kind, repository, ref, old, new."""
        return self.rows(
            """SELECT c.kind, r.full_name, c.ref, c.old, c.new FROM changes c
               LEFT JOIN repositories r ON r.id = c.repository_id ORDER BY c.id"""
        )

    def gone(self) -> dict[str, str]:
        """Read the tombstones and their reasons."""
        return dict(self.rows("SELECT full_name, gone_reason FROM repositories WHERE deleted_at IS NOT NULL"))


def sync_in_child(origin: str, path: Path, moment: datetime, settings: dict[str, Any]) -> None:
    """Sync in a process of its own, which may be killed; the clock begins at a moment."""
    clock = Clock()
    clock.moment = moment
    SyncHarness(origin, path, clock, **settings).sync(later=0)


@contextmanager
def crawling(
    tmp_path: Path,
    world: World | int = 0,
    *,
    clock: Clock | None = None,
    network: bool = False,
    synced: bool = False,
    **settings: Any,
) -> Iterator[tuple[Sandbox, SyncHarness]]:
    """Make a world with the clock of its crawl; with `network`, serve it over real HTTP.

    With `synced`, the mirror begins as a copy of a first sync, and the sandbox without a request.
    """
    clock, path = clock or Clock(), tmp_path / "mirror.db"
    first = _first_sync(world, network=network, **settings) if synced else None
    options = {name: settings.pop(name) for name in _SANDBOX_OPTIONS & settings.keys()}
    if "our_limit" in settings:
        settings["requests_per_hour"] = settings.pop("our_limit")
    world = world if isinstance(world, World) else World(world, now=clock.now)
    sandbox = Sandbox(world, **options)
    with running(sandbox, port=long_port()) if network else nullcontext() as served:
        crawl = SyncHarness(served.origin if served else "http://sandbox", path, clock, **settings)
        if served is None:
            crawl.transport = WithoutNetwork(sandbox.answer, crawl.page_length or 100)
        if first:
            mirror, clock.moment = first
            mirror.copy(path, crawl.origin)
        yield sandbox, crawl


_first_syncs = dict[str, tuple[MirrorOf, datetime]]()


def _first_sync(world: World | int, **settings: Any) -> tuple[MirrorOf, datetime]:
    """Sync a new world with some settings, once in a process; return the mirror, and the time after it."""
    assert isinstance(world, int), "a world that a test made is its own"
    asked = repr((world, sorted(settings.items())))
    if asked not in _first_syncs:
        with tempfile.TemporaryDirectory() as folder, crawling(Path(folder), world, **settings) as (_, crawl):
            assert crawl.sync().state == "complete"
            _first_syncs[asked] = MirrorOf(crawl.origin, crawl.path.read_bytes()), crawl.clock.moment
    return _first_syncs[asked]


_SANDBOX_OPTIONS = {"requests_per_hour", "anonymous_requests_per_hour", "faults", "options", "lively"}


def assert_matches_sandbox(
    crawl: SyncHarness, served: RunningSandbox | Sandbox, workspaces: Sequence[str], caller: Principal = TOKEN
) -> None:
    """Compare every row of the mirror, except tombstones, with what the sandbox would answer now."""
    sandbox = served.sandbox if isinstance(served, RunningSandbox) else served
    origin = crawl.config.url.removesuffix("/2.0")
    with crawl.reading() as rows:
        found = list(differences(rows, sandbox, workspaces, origin=origin, caller=caller))
    assert not found, "\n".join(found)


def contents(crawl: SyncHarness) -> dict[str, list[Any]]:
    """Read the whole mirror by natural keys, without the times at which rows were seen."""
    repository = "(SELECT uuid FROM repositories r WHERE r.id = repository_id)"
    columns = ", ".join(REPOSITORY_COLUMNS)
    with crawl.reading() as rows:
        return {
            "users": rows("SELECT uuid, username, kind, is_owner, display_name FROM users ORDER BY uuid"),
            "members": rows(
                """SELECT w.uuid, u.uuid, m.permission FROM members m JOIN users w ON w.id = m.workspace_id
                   JOIN users u ON u.id = m.user_id ORDER BY 1, 2"""
            ),
            "repositories": rows(
                f"""SELECT {columns}, refs_stale, gone_reason,
                    (SELECT uuid FROM users u WHERE u.id = owner_id),
                    (SELECT p.uuid FROM repositories p WHERE p.id = repositories.parent_id)
                    FROM repositories ORDER BY uuid"""
            ),
            "branches": rows(f"SELECT {repository}, name, target_hash FROM branches ORDER BY 1, 2"),
            "tags": rows(f"SELECT {repository}, name, target_hash, message FROM tags ORDER BY 1, 2"),
            "changes": rows(f"SELECT kind, {repository}, ref, old, new FROM changes ORDER BY 1, 2, 3, 4"),
            "failures": rows("SELECT kind, subject FROM sync_failures ORDER BY 1, 2"),
            "seen_refs": rows("SELECT * FROM seen_refs"),
            "streams": rows("SELECT stream FROM cursors ORDER BY 1"),
        }
