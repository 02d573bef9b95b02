"""Webhooks: `POST /-/webhook/{upstream}` saves what a Bitbucket reports as changed, in milliseconds.

A body is not even parsed before its signature has been verified. Little is written then: heads of refs that
follow those the mirror has, and hints for the next run to ask the upstream about. So no lost, repeated or
forged webhook can make the mirror say what the upstream does not. A delivery answered 200 is in the mirror,
one answered 202 is on the disk, and one answered 5xx has to be sent again.
"""

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasette.utils.asgi import Request, Response

from mirror.errors import StoreError
from mirror.serve.body import BodyRefused, read_within
from mirror.serve.database import mirrors
from mirror.serve.exchange import SAFETY, ApiError, mirror_of, served_of
from mirror.serve.state import Served, served
from mirror.serve.webhook_events import PING, Malformed, read_event
from mirror.serve.webhook_writer import Hook, Kept, Overwhelmed, Spool, SpoolFull, WebhookWriter
from mirror.store import Store
from mirror.store.webhooks import KEPT_HOURS, Delivery, is_new, save_event
from mirror.times import to_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

PATTERN = r"^/-/webhook/(?P<upstream>[^/]+)/?$"
LARGEST_BODY = 1_000_000
BODY_SECONDS = 10.0

_RETRY = {"Retry-After": "60"}
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")

log = logging.getLogger("mirror.webhooks")


def accept(datasette: "Datasette", known: Mapping[str, Hook]) -> None:
    """Accept webhooks of these upstreams from now on, and write those that were acknowledged earlier."""
    served(datasette).hooks = known
    mirror = next(mirrors(datasette), None)
    if mirror is not None and not Spool(Path(mirror.path)).is_empty():
        writer_of(served(datasette), Path(mirror.path))


def writer_of(server: Served, path: Path) -> WebhookWriter:
    """Return the webhook writer of a server; a new one begins with what was acknowledged earlier."""
    if server.webhook_writer is None:
        server.webhook_writer = WebhookWriter(path, lambda store, kept: write(store, kept, utc_now()))
    return server.webhook_writer


async def view(request: Request) -> Response:
    """Answer one delivery."""
    upstream, server = request.url_vars["upstream"], served_of(request)
    # All unknown names share one label: one each would let strangers fill the memory.
    label = upstream if upstream in server.hooks else "(none)"
    try:
        status, said = await _taken(request, server, upstream)
    except ApiError as error:
        server.latencies.webhook(label, f"refused {error.status}")
        log.info("webhook refused: %s", error, extra={"status": error.status})
        return _json(error.body, error.status, error.headers)
    server.latencies.webhook(label, said["outcome"])
    log.info("webhook %s: %s %s", label, request.headers.get("x-event-key", "")[:40], said["outcome"])
    return _json(said, status, {})


async def _taken(request: Request, server: Served, upstream: str) -> tuple[int, dict[str, Any]]:
    """Verify a delivery, decode it, and have it written; raises ApiError."""
    if request.method != "POST":
        raise ApiError(405, "webhooks are POSTed", headers={"Allow": "POST"})
    hook = server.hooks.get(upstream)
    if hook is None:
        raise ApiError(
            404, "no webhook is configured here: set webhook_secret for the upstream in mirror.toml"
        )
    body = await read_body(request)
    event, signature = request.headers.get("x-event-key", ""), request.headers.get("x-hub-signature", "")
    if event == PING and not signature:  # servers do not sign it
        return 200, {"outcome": "ignored", "detail": "the secret was not checked: this was not signed"}
    verify(hook.secret, body, signature)
    if event == PING:
        return 200, {"outcome": "ignored"}
    try:
        news = read_event(event, body, datacenter=hook.datacenter)
    except Malformed as error:
        raise ApiError(400, f"{event[:40] or 'no X-Event-Key'}: {error}") from None
    if news is None:
        return 200, {"outcome": "ignored"}
    number = request.headers.get("x-request-uuid") or request.headers.get("x-request-id") or ""
    delivery = Delivery(event, hashlib.sha256(body).hexdigest(), number[:100], to_text(utc_now()))
    return await _written(request, server, Kept(upstream, delivery, news))


async def read_body(request: Request) -> bytes:
    """Read a body of at most LARGEST_BODY bytes within BODY_SECONDS; raises ApiError."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ApiError(
            415, "send the body as it is, without Content-Encoding", headers={"Accept-Encoding": "identity"}
        )
    try:
        return await read_within(request.receive, request.headers, most=LARGEST_BODY, seconds=BODY_SECONDS)
    except BodyRefused as error:
        raise ApiError(error.status, str(error), headers={"Connection": "close"}) from None


def verify(secret: str, body: bytes, header: str) -> None:
    """Compare a signature in constant time; raises ApiError."""
    found = _SIGNATURE.fullmatch(header.strip())
    if found is None:
        raise ApiError(403, "X-Hub-Signature must be sha256= and the body's HMAC; give the webhook a secret")
    ours = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    if not hmac.compare_digest(ours, bytes.fromhex(found[1])):
        raise ApiError(403, "the signature is of another secret or another body")


async def _written(request: Request, server: Served, kept: Kept) -> tuple[int, dict[str, Any]]:
    """Have a delivery written, without waiting long for a busy file; raises ApiError."""
    mirror = mirror_of(request)
    if mirror is None:
        raise ApiError(503, "no mirror is served here", headers=_RETRY)
    writer = writer_of(server, Path(mirror.path))
    try:
        writing = asyncio.wrap_future(writer.submit(kept))
        done = await asyncio.wait_for(writing, server.webhook_seconds)
    except Overwhelmed:
        raise ApiError(503, "too many webhooks wait for the file", headers=_RETRY) from None
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
    except SpoolFull:
        raise ApiError(503, "too many webhooks wait for the file", headers=_RETRY) from None
    except OSError as error:
        log.warning("webhook %s: cannot be kept: %s", kept.upstream, error.strerror)
        raise ApiError(503, "the mirror cannot be written to now", headers=_RETRY) from None
    return 202, {"outcome": "waiting", "detail": "the mirror is being written to; this follows"}


def write(store: Store, kept: Kept, now: datetime) -> dict[str, Any]:
    """Write a delivery's news and its own record together.

    One that was taken before is done with. Without a number it may also be another event with the same body:
    then nothing is applied, and the upstream is asked.
    """
    at, delivery = to_text(now), kept.delivery
    with store.transaction() as connection:
        row = store.row("SELECT id FROM upstreams WHERE name = ?", (kept.upstream,))
        if row is None:
            return {"outcome": "unknown"}
        forget_before = to_text(now - timedelta(hours=KEPT_HOURS))
        repeated = not is_new(connection, row[0], delivery, forget_before=forget_before)
        if repeated and delivery.request:
            return {"outcome": "repeated"}
        moved = 0
        for one in kept.news:
            said = one._replace(updates=()) if repeated else one
            changes = save_event(connection, row[0], said, at=delivery.at)
            store.save_changes(changes, run_id=None, at=at)
            moved += len(changes)
    outcome = "repeated" if repeated else "taken"
    return {"outcome": outcome, "refs_moved": moved, "marked": len(kept.news)}


def _json(body: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response.json(body, status=status, headers={**SAFETY, **headers, "Cache-Control": "no-store"})
