"""Webhooks: `POST /-/webhook/{upstream}` saves within milliseconds what a Bitbucket reports as changed.

Only two things are written: new heads of refs, if they follow the heads in the mirror, and hints that make
the next run ask the upstream. So lost, repeated or forged webhooks cannot make the mirror differ from the
upstream for long. A delivery answered with 200 is in the mirror, with 202 on the disk; after a 5xx it must be
sent again.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datasette.utils.asgi import Request, Response

from mirror.errors import StoreError
from mirror.serve.connections import OncePerMinute
from mirror.serve.exchange import SAFETY, ApiError, BodyRefused, mirror_of, read_within, served_of
from mirror.serve.guarded_database import mirrors
from mirror.serve.state import Served, served
from mirror.serve.webhook_events import PING, Malformed, read_event
from mirror.serve.webhook_writer import Kept, Spool, TooMany, WebhookWriter, write
from mirror.store.webhooks import Delivery
from mirror.times import to_text, utc_now

if TYPE_CHECKING:
    from datasette.app import Datasette

log = logging.getLogger("mirror.webhooks")
refusals = logging.getLogger("mirror.webhooks.refusals")
refusals.addFilter(OncePerMinute())  # anybody may send what is refused


class Hook(NamedTuple):
    """The secret of an upstream's webhooks, and whether Data Center sends them, not Cloud."""

    secret: str
    datacenter: bool


# Stands for each name that no upstream with a secret has, so that nobody learns which names there are.
_UNKNOWN = Hook(secrets.token_hex(), datacenter=False)

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
        refusals.info("webhook %s refused: %s", label, error, extra={"status": error.status})
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
    if not server.hooks:
        raise ApiError(
            404, "no webhook is configured here: set webhook_secret for an upstream in mirror.toml"
        )
    hook = server.hooks.get(upstream, _UNKNOWN)
    body = await read_unencoded(request)
    event, signature = request.headers.get("x-event-key", ""), request.headers.get("x-hub-signature", "")
    if event == PING and not signature:  # servers do not sign pings
        return 200, {
            "outcome": "ignored",
            "detail": "neither the secret nor the upstream was checked, because a ping is not signed",
        }
    verify_signature(hook.secret, body, signature)  # before anything in the body is read
    try:
        events = None if event == PING else read_event(event, body, datacenter=hook.datacenter)
    except Malformed as error:
        raise ApiError(400, f"{event[:40] or 'no X-Event-Key'}: {error}") from None
    if events is None:
        return 200, {"outcome": "ignored"}
    number = request.headers.get("x-request-uuid") or request.headers.get("x-request-id") or ""
    delivery = Delivery(event, hashlib.sha256(body).hexdigest(), number[:100], to_text(utc_now()))
    return await _written(request, server, Kept(upstream, delivery, events))


async def read_unencoded(request: Request) -> bytes:
    """Read a body of at most LARGEST_BODY bytes within BODY_SECONDS; raises ApiError."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ApiError(
            415, "send the body as it is, without Content-Encoding", headers={"Accept-Encoding": "identity"}
        )
    try:
        return await read_within(request.receive, request.headers, most=LARGEST_BODY, seconds=BODY_SECONDS)
    except BodyRefused as error:
        raise ApiError(error.status, str(error)) from None


def verify_signature(secret: str, body: bytes, header: str) -> None:
    """Compare a signature in constant time; raises ApiError."""
    found = _SIGNATURE.fullmatch(header.strip())
    if found is None:
        raise ApiError(403, "X-Hub-Signature must be sha256= and the body's HMAC; give the webhook a secret")
    ours = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    if not hmac.compare_digest(ours, bytes.fromhex(found[1])):
        raise ApiError(
            403,
            "the signature does not match: another webhook_secret, none for this name, or a changed body",
        )


async def _written(request: Request, server: Served, kept: Kept) -> tuple[int, dict[str, Any]]:
    """Write a delivery, or keep it on the disk if the file is busy; raises ApiError."""
    mirror = mirror_of(request)
    if mirror is None:
        raise ApiError(503, "no mirror is served here", headers=_RETRY)
    writer = writer_of(server, Path(mirror.path))
    try:
        writing = asyncio.wrap_future(writer.submit(kept))
        outcome = await asyncio.wait_for(writing, server.webhook_seconds)
    except (TooMany, TimeoutError):
        return await _acknowledged(writer, kept)
    except StoreError as error:
        log.warning("webhook %s: %s", kept.upstream, error)
        raise ApiError(503, "the mirror cannot be written to now", headers=_RETRY) from None
    if outcome == "unknown":
        raise ApiError(404, "this upstream has not been mirrored yet")
    # No more: whoever has set up one repository knows the secret, and may not see the refs of all.
    return 200, {"outcome": outcome}


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


def _json(body: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response.json(body, status=status, headers={**SAFETY, **headers, "Cache-Control": "no-store"})
