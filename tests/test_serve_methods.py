"""Methods: each address refuses those that it lacks, without failing."""

import logging
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, client_of
from datasette.app import Datasette
from fixtures_db import fill_public

ADDRESSES = (
    "/",
    "/-/search",
    "/-/mirror-login",
    "/-/static/app.css",
    "/-/logout",
    "/-/messages",
    "/mirror",
    "/mirror/repositories",
    "/mirror/repositories.json",
    "/mirror/stale",
    "/mirror/repositories/1",
    "/nope",
    "/nope/nothing",
    "/1.0/user",
    "/2.0/user",
    "/rest/api/1.0/users",
    "/-/webhook/cloud",
)
READ = (
    "/mirror", "/mirror/repositories", "/mirror/repositories.json", "/mirror/stale", "/mirror/nothing",
    "/-/health", "/-/metrics", "/-/openapi/2.0.json", "/-/static/app.css", "/-/versions.json", "/-/plugins",
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> AsgiClient:
    """A mirror that anybody may read."""
    path = tmp_path_factory.mktemp("served") / "mirror.db"
    fill_public(path).store.close()
    return client_of(path)


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("method", ["FOO", "PROPFIND", "TRACE", "RENDER", "DISPATCH_REQUEST"])
def test_an_unknown_method_is_refused(
    served: AsgiClient, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    """405 with the allowed ones, and no log line, also if Datasette has an attribute of that name."""
    with caplog.at_level(logging.ERROR):
        answer = served(method, path)
    assert answer.status_code == 405
    assert {"GET", "POST"} & set(answer.headers["Allow"].split(", "))
    assert not caplog.records


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_read_only_routes_refuse_writes(
    served: AsgiClient, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    """A POST to a table, a view or a stored query of a mirror is refused, and does not fail."""
    with caplog.at_level(logging.ERROR):
        answer = served(method, path, data={"a": "b"})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "said", "status"),
    [
        ("/-/mirror-login", {"token": "none"}, 403),
        ("/-/logout", {}, 302),
        ("/-/messages", {"message": "x"}, 302),
        ("/-/webhook/cloud", {}, 404),
        ("/nope/nothing", {}, 404),
    ],
)
def test_existing_post_routes_answer(
    served: AsgiClient, path: str, said: dict[str, Any], status: int
) -> None:
    """Routes that accept POST still do."""
    assert served("POST", path, data=said).status_code == status


def test_a_writable_stored_query_works(tmp_path: Path) -> None:
    """An operator's own one, for another database, accepts POST and reports errors."""
    queries = {"add": {"sql": "insert into t values (:a)", "write": True}, "bad": {"sql": "select 1"}}
    datasette = Datasette(memory=True, metadata={"databases": {"_memory": {"queries": queries}}})
    served = AsgiClient(datasette)
    assert served("POST", "/_memory/add?_json=1", data={"a": "b"}).json()["message"] == "no such table: t"
    assert served("POST", "/_memory/bad", data={"a": "b"}).status_code == 405


def test_a_request_that_is_not_utf8_is_400(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cookie with invalid bytes is 400 at every address, and the log blames no file."""
    fill_public(tmp_path / "mirror.db").store.close()
    served = client_of(tmp_path / "mirror.db")
    for path in ("/", "/mirror.json", "/1.0/repositories/jespern", "/2.0/repositories/jespern", "/-/metrics"):
        answer = served.get(path, headers=[(b"Cookie", b"a=\xff\xfe")])
        assert answer.status_code == 400, path
    assert not caplog.records


@pytest.mark.parametrize("name", ["%00", "a" * 300])
def test_an_impossible_file_name_is_404(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Datasette tries to open any name among its own files."""
    fill_public(tmp_path / "mirror.db").store.close()
    assert client_of(tmp_path / "mirror.db").get(f"/-/static/{name}").status_code == 404
    assert not caplog.records


def test_many_parameters_hide_none(served: AsgiClient) -> None:
    """A filter or a credential among hundreds of unknown parameters still counts; thousands are not read."""
    unknown = "&".join(f"a{number}=" for number in range(500))
    assert served.json(f"/2.0/repositories?{unknown}&fields=size") == {"size": 5}
    assert served.get(f"/2.0/repositories?{unknown}&access_token=none").status_code == 401
    assert served.get(f"/-/search.json?{unknown}&q=piston").json()["count"] == 2
    assert served.get("/2.0/repositories?fields=size&" + "a&" * 5000 + "access_token=none").status_code == 200
