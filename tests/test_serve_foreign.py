"""Requests from pages of other sites write nothing, and log nobody in or out."""

from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from asgi_client import basic, bearer, client_of, make_tokens
from fake_writer import FakeWriter
from fixtures_db import fill_mixed

WRITES = (
    ("POST", "/2.0/repositories/jespern/new"),
    ("PUT", "/2.0/repositories/jespern/django-piston"),
    ("DELETE", "/2.0/repositories/jespern/django-piston"),
    ("POST", "/1.0/repositories"),
    ("DELETE", "/api/1.0/repositories/jespern/django-piston"),
    ("POST", "/-/messages"),
)
FOREIGN = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:8002"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "anything else"},
)
OWN: tuple[dict[str, str], ...] = (
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://LOCALHOST"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"},
    {"Origin": "https://mirror.example:8443"},
)


class World:
    """A mirror that takes writes, with a public address; it records the writes."""

    def __init__(self, path: Path) -> None:
        filled = fill_mixed(path)
        self.token = make_tokens(filled.store)["write"]
        self.writer = FakeWriter(filled)
        self.served = client_of(
            path, writes=True, writer=self.writer, public_url="https://mirror.example:8443/code"
        )

    def __call__(self, method: str, path: str, headers: dict[str, str], **options: Any) -> Any:
        """Ask with a Basic login."""
        login = basic("jespern", self.token)
        return self.served(method, path, headers={**login, **headers}, **options)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One for each test: they write."""
    return World(tmp_path / "mirror.db")


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_cross_origin_request_writes_nothing(world: World, headers: dict[str, str]) -> None:
    """403 with the reason, for any address and kind of body; the writer is not called."""
    for method, path in WRITES:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = world(method, path, {**headers, "Content-Type": kind}, content='{"name": "new"}')
            assert answer.status_code == 403, path
            assert "page of another site" in answer.json()["error"]["detail"]
    assert not world.writer.calls


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_tools_and_own_pages_can_write(world: World, headers: dict[str, str]) -> None:
    """Programs send no such headers; own pages have this host or the public address."""
    assert world("POST", "/2.0/repositories/jespern/new", headers, json={}).status_code == 200
    answer = world("PUT", "/1.0/repositories/jespern/new", headers, data={"description": "x"})
    assert answer.status_code == 200
    assert len(world.writer.calls) == 2


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_cross_origin_request_changes_no_login(world: World, headers: dict[str, str]) -> None:
    """A browser gets no cookie of an attacker's session, and keeps its own."""
    form = {"token": world.token, "next": "/"}
    answer = world.served("POST", "/-/mirror-login", headers=headers, data=form)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    for path in ("/-/logout", "/-/messages", "/mirror/repositories", "/nothing"):
        answer = world.served("POST", path, headers=headers, cookies={"ds_actor": "x"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_the_login_form_works(world: World, headers: dict[str, str]) -> None:
    """In a browser that shows this server's page."""
    answer = world.served("POST", "/-/mirror-login", headers=headers, data={"token": world.token})
    assert answer.status_code == 302
    assert "ds_actor" in SimpleCookie(answer.headers["set-cookie"])


def test_reads_and_bearer_tokens_pass_from_any_origin(world: World) -> None:
    """Reads write nothing, and browsers cache no Bearer token."""
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert world("GET", "/2.0/user", foreign).status_code == 200
    assert world("OPTIONS", "/2.0/user", foreign).status_code == 200
    answer = world("POST", "/2.0/repositories/jespern/new", {**foreign, **bearer(world.token)}, json={})
    assert answer.status_code == 200
