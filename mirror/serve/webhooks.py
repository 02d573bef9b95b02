"""Webhooks: `POST /-/webhook/{upstream}` saves within milliseconds what a Bitbucket reports as changed.

Only two things are written: new heads of refs, if they follow the heads in the mirror, and hints that make
the next run ask the upstream. So lost, repeated or forged webhooks cannot make the mirror differ from the
upstream for long. A delivery answered with 200 is in the mirror, with 202 on the disk; after a 5xx it must be
sent again.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from datasette.utils.asgi import Request, Response

from mirror.errors import StoreError
from mirror.serve.exchange import SAFETY, ApiError, BodyRefused, mirror_of, read_within, served_of
from mirror.serve.guarded_database import mirrors
from mirror.serve.state import Served, served
from mirror.serve.webhook_events import PING, Malformed, read_event
from mirror.store import Store
from mirror.store.webhooks import KEPT_HOURS, Delivery, RepositoryEvent, is_new_delivery, save_event
from mirror.times import to_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

MOST_FILES = 1_000  # deliveries in the spool
SUFFIX, SET_ASIDE = ".json", ".failed"
UNFINISHED_SECONDS = 60.0  # much longer than it takes to write a delivery

log = logging.getLogger("mirror.webhooks")

MOST_WAITING = 1_000  # deliveries in memory, whose senders wait for an answer
# Seconds between two attempts to write the spool. Each attempt also waits for SQLite's lock.
PAUSE_SECONDS = 5.0

WriteResult = dict[str, Any]


class Hook(NamedTuple):
    """The secret of an upstream's webhooks, and whether Data Center sends them, not Cloud."""

    secret: str
    datacenter: bool


class Kept(msgspec.Struct, frozen=True):
    """A verified delivery: its upstream, its identity, and the events in it."""

    upstream: str
    delivery: Delivery
    news: list[RepositoryEvent]


class TooMany(Exception):
    """Too many deliveries wait to be written."""


class Spool:
    """The folder of deliveries that wait for one mirror, made when needed and private to its owner."""

    def __init__(self, mirror: Path, *, most_files: int = MOST_FILES) -> None:
        resolved = Path(os.path.realpath(mirror))
        self._folder = resolved.with_name(resolved.name + ".webhooks")
        self._most_files = most_files
        self._drop_unfinished()

    def add(self, kept: Kept) -> None:
        """Save a delivery; it is on the disk when this returns. Raises TooMany and OSError."""
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _sync(self._folder.parent)
        if len(self._names()) >= self._most_files:
            raise TooMany
        # Names sort in the order of arrival; no two are the same.
        descriptor, unfinished = tempfile.mkstemp(prefix=f"{kept.delivery.at}-", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).rename(f"{unfinished}{SUFFIX}")
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        _sync(self._folder)

    def _drop_unfinished(self) -> None:
        """Remove what killed processes had not finished, so was never acknowledged."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                is_old = path.stat().st_mtime < time.time() - UNFINISHED_SECONDS  # one may be written now
                if is_old and path.suffix not in (SUFFIX, SET_ASIDE):
                    path.unlink()

    def waiting(self) -> Iterator[tuple[str, Kept]]:
        """Yield names and deliveries in the order of arrival; set aside a file that is not a delivery."""
        for name in self._names():
            try:
                yield name, msgspec.json.decode((self._folder / name).read_bytes(), type=Kept)
            except FileNotFoundError:
                continue  # another process has written it
            except OSError as error:
                log.warning("%s: cannot be read: %s", self._folder / name, error.strerror)
            except msgspec.MsgspecError:
                self.set_aside(name)

    def remove(self, name: str) -> None:
        """Remove a delivery that was written. If this fails, the next attempt recognises it as repeated."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def set_aside(self, name: str) -> None:
        """Rename a delivery that cannot be written, so that it is not retried."""
        with contextlib.suppress(OSError):
            (self._folder / name).rename(self._folder / f"{name}{SET_ASIDE}")
        log.warning("%s%s: this webhook could not be read and was set aside", self._folder / name, SET_ASIDE)

    def is_empty(self) -> bool:
        """Return whether no delivery waits."""
        return not self._names()

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir() if path.suffix == SUFFIX)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("%s: cannot be read: %s", self._folder, error.strerror)
            return []


def _sync(folder: Path) -> None:
    """Write a folder's list of names to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


WriteDelivery = Callable[[Store, Kept], WriteResult]


class WebhookWriter:
    """Writes deliveries into a mirror, in the order of the calls, in a thread: responses wait for no lock.

    The spool is written first, and retried until that succeeds, also by the next process.
    """

    def __init__(
        self,
        path: Path,
        write: WriteDelivery,
        *,
        most_waiting: int = MOST_WAITING,
        spool: Spool | None = None,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._path, self._write, self._pause = path, write, pause
        self._spool = spool or Spool(path)
        self._store: Store | None = None
        # If the process ends, deliveries in this queue are lost, but their senders got no answer, so they
        # send them again. Acknowledged ones are in the spool.
        self._waiting = queue.Queue[tuple[Kept, Future[WriteResult]] | None](most_waiting)
        threading.Thread(target=self._work, daemon=True, name="webhooks").start()

    def submit(self, kept: Kept) -> Future[WriteResult]:
        """Queue a delivery; raises TooMany. The future raises StoreError if it cannot be written."""
        future = Future[WriteResult]()
        try:
            self._waiting.put_nowait((kept, future))
        except queue.Full:
            raise TooMany from None
        return future

    def keep(self, kept: Kept) -> None:
        """Put a delivery into the spool, to be written soon; raises TooMany and OSError."""
        self._spool.add(kept)
        with contextlib.suppress(queue.Full):  # a full queue keeps the thread awake anyway
            self._waiting.put_nowait(None)

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            if not self._write_spool():
                pause.wait(self._pause)
                continue
            job = self._waiting.get()
            if job is not None and job[1].set_running_or_notify_cancel():
                self._write_now(*job)

    def _write_now(self, kept: Kept, future: Future[WriteResult]) -> None:
        """Write a delivery whose sender is waiting."""
        try:
            future.set_result(self._write(self._opened(), kept))
        except Exception as error:  # noqa: BLE001 - the caller handles it
            future.set_exception(error)
            self._close_after(error)

    def _write_spool(self) -> bool:
        """Write the spool, oldest first; return whether all of it was written."""
        for name, kept in self._spool.waiting():
            try:
                done = self._write(self._opened(), kept)
            except StoreError as error:
                log.warning("webhook %s: kept on the disk until it can be written: %s", kept.upstream, error)
                self._close_after(error)
                return False
            except Exception:
                log.exception("a fault of this program")
                self._spool.set_aside(name)
                continue
            self._spool.remove(name)
            log.info("webhook %s, kept since %s: %s", kept.upstream, kept.delivery.at, done["outcome"])
        return True

    def _opened(self) -> Store:
        if self._store is not None and not self._store.is_in_place:
            self._close()
        self._store = self._store or Store(self._path)
        return self._store

    def _close_after(self, error: Exception) -> None:
        """Close the file after one of its errors, so that it is opened again."""
        if isinstance(error, StoreError):
            self._close()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


PATTERN = r"^/-/webhook/(?P<upstream>[^/]+)/?$"
LARGEST_BODY = 1_000_000
BODY_SECONDS = 10.0  # for how long a body may be sent

_RETRY = {"Retry-After": "60"}
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")


def accept(datasette: "Datasette", known: Mapping[str, Hook]) -> None:
    """Accept webhooks of these upstreams from now on, and write those that wait on the disk."""
    served(datasette).hooks = known
    mirror = next(mirrors(datasette), None)
    if mirror is not None and not Spool(Path(mirror.path)).is_empty():
        writer_of(served(datasette), Path(mirror.path))


def writer_of(server: Served, path: Path) -> WebhookWriter:
    """Return the webhook writer of a server. A new one first writes what waits on the disk."""
    if server.webhook_writer is None:
        server.webhook_writer = WebhookWriter(path, lambda store, kept: write(store, kept, utc_now()))
    return server.webhook_writer


async def answer(request: Request) -> Response:
    """Answer one delivery."""
    upstream, server = request.url_vars["upstream"], served_of(request)
    # All unknown names share one label. With one label each, strangers could fill the memory.
    label = upstream if upstream in server.hooks else "(none)"
    try:
        status, outcome = await _received(request, server, upstream)
    except ApiError as error:
        server.latencies.webhook(label, f"refused {error.status}")
        log.info("webhook refused: %s", error, extra={"status": error.status})
        return _json(error.body, error.status, error.headers)
    server.latencies.webhook(label, outcome["outcome"])
    log.info("webhook %s: %s %s", label, request.headers.get("x-event-key", "")[:40], outcome["outcome"])
    return _json(outcome, status, {})


async def _received(request: Request, server: Served, upstream: str) -> tuple[int, dict[str, Any]]:
    """Verify, decode and write a delivery; raises ApiError."""
    if request.method != "POST":
        raise ApiError(405, "send webhooks by POST", headers={"Allow": "POST"})
    if server.config.read_only:
        raise ApiError(404, "this is a read-only copy: send webhooks to the mirror that syncs")
    hook = server.hooks.get(upstream)
    if hook is None:
        raise ApiError(
            404, "no webhook is configured here: set webhook_secret for the upstream in mirror.toml"
        )
    body = await read_unencoded(request)
    event, signature = request.headers.get("x-event-key", ""), request.headers.get("x-hub-signature", "")
    if event == PING and not signature:  # servers do not sign pings
        return 200, {
            "outcome": "ignored",
            "detail": "the secret was not checked, because a ping is not signed",
        }
    verify_signature(hook.secret, body, signature)  # before anything in the body is read
    try:
        news = None if event == PING else read_event(event, body, datacenter=hook.datacenter)
    except Malformed as error:
        raise ApiError(400, f"{event[:40] or 'no X-Event-Key'}: {error}") from None
    if news is None:
        return 200, {"outcome": "ignored"}
    number = request.headers.get("x-request-uuid") or request.headers.get("x-request-id") or ""
    delivery = Delivery(event, hashlib.sha256(body).hexdigest(), number[:100], to_text(utc_now()))
    return await _written(request, server, Kept(upstream, delivery, news))


async def read_unencoded(request: Request) -> bytes:
    """Read a body of at most LARGEST_BODY bytes within BODY_SECONDS; raises ApiError."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ApiError(
            415, "send the body as it is, without Content-Encoding", headers={"Accept-Encoding": "identity"}
        )
    try:
        return await read_within(request.receive, request.headers, most=LARGEST_BODY, seconds=BODY_SECONDS)
    except BodyRefused as error:
        raise ApiError(error.status, str(error), headers={"Connection": "close"}) from None


def verify_signature(secret: str, body: bytes, header: str) -> None:
    """Compare a signature in constant time; raises ApiError."""
    found = _SIGNATURE.fullmatch(header.strip())
    if found is None:
        raise ApiError(403, "X-Hub-Signature must be sha256= and the body's HMAC; give the webhook a secret")
    ours = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    if not hmac.compare_digest(ours, bytes.fromhex(found[1])):
        raise ApiError(403, "the signature does not match: another secret, or a changed body")


async def _written(request: Request, server: Served, kept: Kept) -> tuple[int, dict[str, Any]]:
    """Write a delivery, or keep it on the disk if the file is busy; raises ApiError."""
    mirror = mirror_of(request)
    if mirror is None:
        raise ApiError(503, "no mirror is served here", headers=_RETRY)
    writer = writer_of(server, Path(mirror.path))
    try:
        writing = asyncio.wrap_future(writer.submit(kept))
        done = await asyncio.wait_for(writing, server.webhook_seconds)
    except TooMany:
        raise ApiError(503, "too many webhooks are waiting to be written", headers=_RETRY) from None
    except TimeoutError:
        return await _acknowledged(writer, kept)
    except StoreError as error:
        log.warning("webhook %s: %s", kept.upstream, error)
        raise ApiError(503, "the mirror cannot be written to now", headers=_RETRY) from None
    if done["outcome"] == "unknown":
        raise ApiError(404, "this upstream has not been mirrored yet")
    return 200, done


async def _acknowledged(writer: WebhookWriter, kept: Kept) -> tuple[int, dict[str, Any]]:
    """Keep a delivery on the disk until the file is free, then acknowledge it."""
    try:
        await asyncio.to_thread(writer.keep, kept)
    except TooMany:
        raise ApiError(503, "too many webhooks are waiting to be written", headers=_RETRY) from None
    except OSError as error:
        log.warning("webhook %s: cannot be kept: %s", kept.upstream, error.strerror)
        raise ApiError(503, "the mirror cannot be written to now", headers=_RETRY) from None
    return 202, {"outcome": "waiting", "detail": "the file is busy; this will be written soon"}


def write(store: Store, kept: Kept, now: datetime) -> dict[str, Any]:
    """Write the events of a delivery and a record of it, in one transaction; ignore one that was written."""
    at, delivery = to_text(now), kept.delivery
    with store.transaction() as connection:
        row = store.row("SELECT id FROM upstreams WHERE name = ?", (kept.upstream,))
        if row is None:
            return {"outcome": "unknown"}
        forget_before = to_text(now - timedelta(hours=KEPT_HOURS))
        repeated = not is_new_delivery(connection, row[0], delivery, forget_before=forget_before)
        if repeated and delivery.request:
            return {"outcome": "repeated"}
        # Without a number, it could also be a new event with the same body: the next run asks the upstream.
        moved = 0
        for one in kept.news:
            event = one._replace(updates=()) if repeated else one
            changes = save_event(connection, row[0], event, at=delivery.at)
            store.save_changes(changes, run_id=None, at=at)
            moved += len(changes)
    outcome = "repeated" if repeated else "taken"
    return {"outcome": outcome, "refs_moved": moved, "marked": len(kept.news)}


def _json(body: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response.json(body, status=status, headers={**SAFETY, **headers, "Cache-Control": "no-store"})
