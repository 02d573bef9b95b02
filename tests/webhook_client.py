"""Helpers for tests of webhooks: bodies of every kind, signed as Bitbucket does, and a server for them."""

import hashlib
import hmac
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from asgi_client import AsgiClient, client_of
from sync_harness import Clock, SyncHarness, WithoutNetwork

from mirror.sandbox import Sandbox, World, visible_repositories
from mirror.serve.webhooks import Hook, accept
from mirror.store import Store, tokens

SECRET = "correct horse battery staple"
ANSWERS = Path(__file__).parent / "answers/webhooks"
SOME = "ubernostrum/django-profiles"
OLD, NEW, NEWER = "a" * 40, "b" * 40, "c" * 40


def body_of(name: str, **words: str) -> bytes:
    """Read a body and fill in its placeholders."""
    text = (ANSWERS / name).read_text("utf-8")
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(f'"{word}"', f'"{words[word]}"')
    return text.encode()


def signature(body: bytes, secret: str = SECRET) -> str:
    """Sign a body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class WebhookClient:
    """A served mirror that accepts webhooks of its upstream."""

    def __init__(self, sandbox: Sandbox, crawl: SyncHarness, *, datacenter: bool = False) -> None:
        self.sandbox, self.crawl = sandbox, crawl
        self.client: AsgiClient = client_of(crawl.path)
        self.sent = 0
        accept(self.client.datasette, {"here": Hook(SECRET, datacenter)})

    @cached_property
    def authorization(self) -> dict[str, str]:
        """The header of a local token that sees everything."""
        with Store(self.crawl.path) as store:
            return {"Authorization": f"Bearer {tokens.create(store, 'prometheus')}"}

    def deliver(
        self, event: str, body: bytes, *, upstream: str = "here", secret: str = SECRET, **headers: str
    ) -> httpx.Response:
        """Send an event as Bitbucket does; headers by name, with _ for -."""
        self.sent += 1
        said = {
            "X-Event-Key": event,
            "X-Request-UUID": f"request-{self.sent}",
            "X-Hub-Signature": signature(body, secret),
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        said = {name: value for name, value in said.items() if value}
        return self.client("POST", f"/-/webhook/{upstream}", content=body, headers=said)

    def push(self, old: str, new: str, full_name: str = SOME, **more: Any) -> httpx.Response:
        """Send a push that moves the branch `main` and makes the tag `v1`."""
        words = {"NAME": full_name, "UUID": self.uuid(full_name), "OLD": old, "NEW": new}
        return self.deliver("repo:push", body_of("cloud_push.json", **words), **more)

    def about(self, event: str, file: str, full_name: str = SOME, **words: str) -> httpx.Response:
        """Send an event about a repository."""
        return self.deliver(event, body_of(file, NAME=full_name, UUID=self.uuid(full_name), **words))

    def uuid(self, full_name: str) -> str:
        """Find a repository's identity, in the mirror or in the sandbox."""
        found = self.crawl.rows("SELECT uuid FROM repositories WHERE full_name = ?", full_name)
        if found:
            return str(found[0][0])
        told = {row["full_name"]: row["uuid"] for row in visible_repositories(self.sandbox.world)}
        return str(told[full_name])

    def main(self, full_name: str = SOME) -> str | None:
        """Read where the mirror has the branch `main`."""
        found = self.crawl.rows(
            """SELECT target_hash FROM branches WHERE name = 'main' AND repository_id =
               (SELECT id FROM repositories WHERE full_name = ?)""",
            full_name,
        )
        return found[0][0] if found else None


def webhook_mirror(tmp_path: Path, **settings: Any) -> WebhookClient:
    """Serve a synced mirror of a small sandbox; one repository's branch `main` is at `OLD`."""
    clock = Clock()
    sandbox = Sandbox(World(30, now=clock.now))
    sandbox.do("create_branch", SOME, name="main", target=OLD)
    crawl = SyncHarness("http://sandbox", tmp_path / "mirror.db", clock, **settings)
    crawl.transport = WithoutNetwork(sandbox.answer)
    if settings:
        assert crawl.sync().state == "complete"
    else:
        copy_synced(crawl)
    return WebhookClient(sandbox, crawl)


def copy_synced(crawl: SyncHarness) -> None:
    """Repeat the effect of an earlier sync in this process: copy its file, and move its clock."""
    if not _SYNCED:
        assert crawl.sync().state == "complete"
        _SYNCED.append((crawl.path.read_bytes(), crawl.clock.moment))
    contents, crawl.clock.moment = _SYNCED[0]
    crawl.path.write_bytes(contents)
    crawl.path.chmod(0o600)


_SYNCED = list[tuple[bytes, datetime]]()
