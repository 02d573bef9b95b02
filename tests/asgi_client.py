"""AsgiClient a served mirror in one process, without a network, as each kind of caller."""

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from datasette.app import Datasette

from mirror.config import ServeConfig
from mirror.serve.connections import Peers
from mirror.serve.server import build
from mirror.store import Store, tokens


def basic(user: str, password: str) -> dict[str, str]:
    """Headers of a Basic login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Headers that carry a token."""
    return {"Authorization": f"Bearer {token}"}


class AsgiClient:
    """A Datasette that can be asked from a plain test."""

    def __init__(self, datasette: Datasette) -> None:
        self.datasette = datasette
        asyncio.run(datasette.invoke_startup())

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask once; redirects are not followed."""
        asked: httpx.Response = asyncio.run(self.datasette.client.request(method, path, **options))
        return asked

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask with GET."""
        return self("GET", path, **options)

    def json(self, path: str, **options: Any) -> Any:
        """Ask with GET for JSON that must be there."""
        answer = self.get(path, **options)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
        return answer.json()


class OwnPeers(Peers):
    """A machine on which every connection is this user's own: no socket stands behind these requests."""

    def are_listed(self) -> bool:
        return True

    def is_ours(self, client: Any, server: Any) -> bool:
        del client, server
        return True


def client_of(path: Path, *, writer: Any = None, **settings: Any) -> AsgiClient:
    """Build the application as `mirror serve` does."""
    return AsgiClient(build(path, ServeConfig(**settings), writer=writer, peers=OwnPeers()))


def make_tokens(store: Store) -> dict[str, str]:
    """Make one token of every sort: living ones by scope, a revoked, an expired and an unknown one."""
    made = {
        "read": tokens.create(store, "reader", "read"),
        "write": tokens.create(store, "writer", "read,write"),
        "user": tokens.create(store, "of jespern", "read", user="jespern"),
        "revoked": tokens.create(store, "revoked", "write"),
        "expired": tokens.create(store, "expired", "write", datetime(2020, 1, 1, tzinfo=UTC)),
        "bad": tokens.PREFIX + "0" * 43,
    }
    tokens.revoke(store, "revoked")
    return made
