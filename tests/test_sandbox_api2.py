"""The sandbox's API 2.0 over real HTTP: routes, credentials, errors, budget, control."""

import base64
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live_server import WITHOUT_TLS

from mirror.sandbox import RunningSandbox, Sandbox, World, running, serve, visible_repositories

PASSWORD = "sandbox"
BEARER = {"Authorization": "Bearer sandbox"}


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with running(Sandbox(World())) as found:
        yield found


@pytest.fixture
def client(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    """An anonymous client."""
    with httpx.Client(verify=WITHOUT_TLS, base_url=sandbox.url, trust_env=False, timeout=5) as found:
        yield found


def login(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_it_stops_even_with_open_connections() -> None:
    """One that is kept, and one that never asks, do not hold it up."""
    with httpx.Client(verify=WITHOUT_TLS, trust_env=False) as client, running(Sandbox(World())) as found:
        idle = socket.create_connection(("127.0.0.1", int(found.origin.rpartition(":")[2])))
        assert client.get(f"{found.url}/workspaces/big").status_code == 200
    idle.close()


def test_serve_announces_its_address_and_ends_with_a_signal() -> None:
    """It ends cleanly within a second of SIGTERM."""
    program = (
        "from mirror.sandbox import *; "
        "serve(Sandbox(World(20)), port=0, announce=lambda text: print(text, flush=True))"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            origin = process.stdout.readline().strip()
            with httpx.Client(verify=WITHOUT_TLS, trust_env=False) as client:
                assert client.get(f"{origin}/2.0/repositories/jespern").status_code == 200
                process.send_signal(number)
                assert process.wait(timeout=15) == 0
            assert process.stderr.read() == ""


def test_a_taken_port_is_one_clear_error(sandbox: RunningSandbox) -> None:
    """The message names the port, and no socket stays open."""
    port = int(sandbox.origin.rpartition(":")[2])
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        serve(Sandbox(World(20)), "127.0.0.1", port)


@pytest.mark.parametrize(
    "path",
    [
        "repositories",
        "repositories?role=member",
        "workspaces",
        "teams/x",
        "user/permissions/workspaces",
        "snippets",
    ],
)
def test_removed_endpoints_answer_410(client: httpx.Client, path: str) -> None:
    """The body contains the announcement twice: in the error and beside it."""
    answer = client.get(path)
    assert answer.status_code == 410
    body = answer.json()
    assert body["error"]["message"] == "CHANGE-2770 - Functionality has been deprecated"
    assert body["data"] == body["error"]["data"]


@pytest.mark.parametrize(
    ("path", "who", "status"),
    [
        ("repositories/jespern/arriving", {}, 404),
        ("repositories/jespern/arriving", login("jespern"), 200),
        ("repositories/JESPERN/Arriving", login("jespern@example.com"), 200),
        ("repositories/jespern/arriving", login("erik"), 404),
        ("repositories/erik/org.eclipse.mylyn.bitbucket", login("jespern"), 200),
        ("repositories/jespern/arriving", BEARER, 200),
        ("repositories/jespern/arriving", login("jespern", "wrong"), 401),
        ("repositories/jespern", {"Authorization": "Bearer wrong"}, 401),
        ("repositories/jespern", login("nobody"), 401),
        ("repositories/nobody", {}, 404),
        ("repositories/jespern/nothing", {}, 404),
        ("workspaces/jespern/members", {}, 401),
        ("workspaces/jespern/members", login("erik"), 200),
        ("user", {}, 401),
        ("user", login("erik"), 200),
        ("user", BEARER, 403),
        ("user/workspaces", {}, 401),
        ("users/jespern", {}, 404),
        ("repositories/jespern/django-piston/patch", {}, 404),
        ("repositories/jespern/django-piston/refs/branches/default", {}, 200),
        ("repositories/jespern/django-piston/refs/tags/0.2.3", {}, 200),
        ("repositories/jespern/django-piston/refs/tags/0.9", {}, 404),
        ("repositories/1team/special-refs/refs/branches/feature/x", {}, 200),
        ("repositories/1team/special-refs/refs/branches/feature%2Fx", {}, 200),
        ("repositories/1team/special-refs/refs/tags/v1.0%2520", {}, 200),
        ("repositories/jespern?sort=nonsense", {}, 400),
        ("repositories/jespern?page=x", {}, 400),
        ("repositories/jespern?q=this is not one", {}, 400),
        ("repositories/jespern?q=nonsense=1", {}, 400),
    ],
)
def test_statuses_by_path_and_credential(
    client: httpx.Client, path: str, who: dict[str, str], status: int
) -> None:
    """The statuses are those of Bitbucket."""
    assert client.get(path, headers=who).status_code == status


def test_errors_have_the_recorded_form(client: httpx.Client) -> None:
    """401 is an empty page. The 404s of a repository, a workspace and a URL differ."""
    refused = client.get("user")
    assert (refused.content, refused.headers["content-type"]) == (b"", "text/html; charset=utf-8")
    assert "WWW-Authenticate" in refused.headers
    messages = [client.get(path).json()["error"]["message"] for path in ("repositories/jespern/x", "x/y")]
    assert messages[0].startswith("You may not have access to this repository or it no longer exists")
    assert messages[1] == "Resource not found"
    assert client.get("repositories/x").json()["error"]["message"] == "No workspace with identifier 'x'."


def test_the_next_link_leads_to_the_same_host(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """It is absolute, keeps all parameters, and changes its path with `next_prefix`."""
    page = client.get('repositories/big?pagelen=5&q=updated_on>="2009-01-01"&fields=next').json()
    assert page["next"].startswith(f"{sandbox.url}/repositories/big?")
    assert client.get(page["next"]).json()["next"].endswith("page=3")
    sandbox.sandbox.options.next_prefix = "/!api/2.0"
    page = client.get("repositories/big").json()
    assert page["next"].startswith(f"{sandbox.origin}/!api/2.0/repositories/big?")
    assert client.get(page["next"]).json()["page"] == 2


def test_odd_pages_can_only_be_read_by_following_next(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """Counting rows or pages does not work, but the links lead to every row once."""
    sandbox.sandbox.options.odd_pages = True
    for sort in ("created_on", "-updated_on"):
        place, rows = f"repositories/big?pagelen=40&sort={sort}", list[str]()
        while place:
            page = client.get(place, headers=BEARER).json()
            assert not page.keys() & {"size", "page"}
            assert len(page["values"]) < 40
            rows += [row["uuid"] for row in page["values"]]
            place = page["next"]
        expected = [
            row["uuid"]
            for row in visible_repositories(sandbox.sandbox.world)
            if "/big/" in f"/{row['full_name']}"
        ]
        assert sorted(rows) == sorted(expected)
    assert client.get("repositories/big?page=x").status_code == 400


def test_fields_and_queries_select(client: httpx.Client) -> None:
    """`fields` includes and excludes dotted paths; `q` compares dates, texts and booleans."""
    page = client.get("repositories/ubernostrum?fields=values.slug,size").json()
    assert page == {"values": [{"slug": "django-registration"}, {"slug": "django-profiles"}], "size": 2}
    page = client.get("repositories/ubernostrum?fields=-values.links,-values.owner.links,-pagelen").json()
    assert "links" not in page["values"][0]
    assert "links" not in page["values"][0]["owner"]
    assert {"uuid", "followers_count"} < page["values"][0].keys()
    rows = client.get("repositories/big?pagelen=100").json()["values"]
    middle = sorted(row["updated_on"] for row in rows)[40]
    for sign, expected in ((">=", 1), (">", 0), ("<=", 1), ("<", 0)):
        asked = {"q": f'updated_on {sign} "{middle}" AND is_private = false', "pagelen": "100"}
        found = {row["updated_on"] for row in client.get("repositories/big", params=asked).json()["values"]}
        assert (middle in found) == bool(expected)
    asked = {"q": 'full_name="jespern/django-piston"'}
    assert client.get("repositories/jespern", params=asked).json()["size"] == 1
    assert client.get("repositories/jespern", params={"q": 'name ~ "PISTON"'}).json()["size"] == 1


def test_uuids_replace_names_and_survive_renaming(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """A repository is found by {uuid} under its workspace, the workspace's uuid, or {}."""
    row = client.get("repositories/jespern/django-piston").json()
    owner = row["owner"]["uuid"]
    sandbox.sandbox.do("rename", "jespern/django-piston", name="Piston Two")
    for workspace in ("jespern", owner, "{}"):
        assert client.get(f"repositories/{workspace}/{row['uuid']}").json()["slug"] == "piston-two"
    assert client.get("repositories/jespern/django-piston").status_code == 404
    assert client.get(f"users/{owner}").json()["display_name"] == "Jesper Noehr"


def test_refs_are_paged_and_sorted(client: httpx.Client) -> None:
    """By default in byte order; sort=name is natural, -target.date starts with the newest."""
    path, rows = "repositories/1team/many-refs/refs?pagelen=100", []
    while path:
        page = client.get(path).json()
        rows += page["values"]
        path = page.get("next", "")
    assert len(rows) == 250
    natural = client.get("repositories/1team/many-refs/refs/branches?sort=name&pagelen=3").json()
    assert [row["name"] for row in natural["values"]] == [f"feature/MANY-{n}" for n in (1, 2, 3)]
    assert natural["size"] == 130
    newest = client.get("repositories/1team/many-refs/refs?sort=-target.date&pagelen=1").json()["values"]
    assert newest[0]["target"]["date"] == max(row["target"]["date"] for row in rows)
    assert "size" not in client.get("repositories/1team/many-refs/refs/tags").json()


def test_clone_links_contain_the_login_of_the_caller(client: httpx.Client) -> None:
    """A mirror must not store it."""
    row = client.get("repositories/mcatalbas/codeigniter", headers=login("brodie")).json()
    assert "//brodie@" in row["links"]["clone"][0]["href"]


def test_repositories_are_created_updated_forked_and_deleted(client: httpx.Client) -> None:
    """Writes have the statuses and effects of Bitbucket."""
    jespern = login("jespern")
    path = "repositories/jespern/new-one"
    assert client.post(path, json={}).status_code == 401
    assert client.post(path, json={}, headers=login("erik")).status_code == 403
    made = client.post(path, json={"scm": "git", "is_private": True, "description": "x"}, headers=jespern)
    assert (made.status_code, made.json()["is_private"], made.json()["mainbranch"]) == (200, True, None)
    again = client.post(path, json={}, headers=jespern)
    assert (again.status_code, again.json()["error"]["message"][:10]) == (400, "Repository")
    renamed = client.put(path, json={"name": "Other Name"}, headers=jespern)
    assert renamed.json()["slug"] == "other-name"
    assert renamed.headers["location"].endswith("/2.0/repositories/jespern/other-name")
    assert renamed.json()["uuid"] == made.json()["uuid"]
    taken = client.put("repositories/jespern/other-name", json={"name": "arriving"}, headers=jespern)
    assert taken.status_code == 400
    form = client.put("repositories/jespern/other-name", data={"is_private": "False"}, headers=jespern)
    assert form.json()["is_private"] is False
    fork = client.post("repositories/mcatalbas/codeigniter/forks", json={"name": "mine"}, headers=jespern)
    assert (fork.status_code, fork.json()["full_name"]) == (201, "jespern/mine")
    assert fork.json()["parent"]["full_name"] == "mcatalbas/codeigniter"
    assert client.delete("repositories/jespern/mine").status_code == 401
    gone = client.delete("repositories/jespern/mine", headers=jespern)
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("repositories/jespern/mine", headers=jespern).status_code == 404
    assert client.put("repositories/jespern/made-by-put", json={}, headers=jespern).status_code == 201


def test_oauth_tokens_are_issued_and_expire(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """Client credentials get a token for an hour; after that, 401."""
    url = f"{sandbox.origin}/site/oauth2/access_token"
    wanted = {"grant_type": "client_credentials"}
    assert client.post(url, data=wanted, headers=login("sandbox", "wrong")).status_code == 401
    assert client.post(url, data={}, headers=login("sandbox")).status_code == 400
    token = client.post(url, data=wanted, headers=login("sandbox")).json()
    assert token["expires_in"] == 3600
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    assert client.get("repositories/jespern/arriving", headers=bearer).status_code == 200
    sandbox.sandbox.advance(3601)
    assert client.get("repositories/jespern/arriving", headers=bearer).status_code == 401


def test_lenient_lists_ignore_wrong_credentials(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """The list is answered as to an anonymous caller; /user still refuses."""
    sandbox.sandbox.options.lenient = True
    wrong = login("jespern", "wrong")
    assert client.get("repositories/jespern", headers=wrong).json()["size"] == 1
    assert client.get("user", headers=wrong).status_code == 401


def test_the_budget_is_a_rolling_hour_for_each_credential() -> None:
    """Beyond the limit comes 429; an hour after the first request, one more is allowed."""
    sandbox = Sandbox(World(20), requests_per_hour=5, anonymous_requests_per_hour=2)
    with (
        running(sandbox) as found,
        httpx.Client(verify=WITHOUT_TLS, base_url=found.url, trust_env=False) as client,
    ):
        who: Any
        for who, limit in ((BEARER, 5), (login("erik"), 5), ({}, 2)):
            statuses = [client.get("repositories/erik", headers=who).status_code for _ in range(limit + 2)]
            assert statuses == [200] * limit + [429] * 2
        refused = client.get("repositories/erik", headers=BEARER)
        assert refused.content == b"Rate limit for this resource has been exceeded"
        assert refused.headers["content-type"] == "text/plain"
        assert "retry-after" not in refused.headers
        assert refused.headers["x-ratelimit-limit"] == "5"
        assert refused.headers["x-ratelimit-nearlimit"] == "true"
        assert "x-ratelimit-limit" not in client.get("repositories/erik").headers
        assert sandbox.state()["too_many_requests"] == 8
        sandbox.advance(3600)
        assert client.get("repositories/erik", headers=BEARER).status_code == 200
        sandbox.options.rate_headers = "ietf"
        assert client.get("repositories/erik").headers["x-ratelimit-limit"] == "2, 2;w=3600"


def test_the_control_endpoint_edits_and_resets(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """It does what the methods do. Its own requests are not counted."""
    control = f"{sandbox.origin}/-/sandbox"
    client.get("repositories/jespern")
    client.get("repositories/jespern/django-piston/refs")
    client.get("repositories/jespern/nothing")
    state = client.get(control).json()
    assert state["total"] == 3
    assert state["by_kind"] == {"listing": 1, "refs": 1, "repository": 1}
    assert state["by_status"] == {"200": 2, "404": 1}
    assert client.get(f"{control}/workspaces").json()[:2] == ["jespern", "erik"]
    done = client.post(control, json={"action": "push", "repository": "jespern/django-piston"}).json()
    assert client.get("repositories/jespern/django-piston").json()["updated_on"] == done["updated_on"]
    moved = client.post(control, json={"action": "rename_workspace", "workspace": "jespern", "name": "jn"})
    assert moved.json()["workspace"] == "jn"
    assert client.get("repositories/jn/django-piston").status_code == 200
    assert client.get("repositories/jespern").status_code == 404
    for wrong in (
        {"action": "nonsense"},
        {"action": "push"},
        {"action": "fault", "what": "x"},
        {"action": "options", "x": 1},
    ):
        refused = client.post(control, json=wrong)
        assert (refused.status_code, refused.json()["type"]) == (400, "error")
    assert client.post(control, content=b"[]").status_code == 400
    assert client.post(control, json={"action": "options", "lenient": True}).json()["options"]["lenient"]
    assert client.post(control, json={"action": "advance", "seconds": 5}).status_code == 200
    assert client.post(control, json={"action": "reset"}).json()["total"] == 0


def test_an_edit_can_wait_for_the_nth_request(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """The hook runs just before that request is answered."""
    sandbox.sandbox.on_request(2, lambda: sandbox.sandbox.do("delete", "jespern/django-piston"))
    statuses = [client.get("repositories/jespern/django-piston").status_code for _ in range(2)]
    assert statuses == [200, 404]


def test_a_failing_hook_is_reported_in_the_state(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """The request is answered, and the error is recorded."""
    sandbox.sandbox.on_request(1, lambda: sandbox.sandbox.do("delete", "no/such"))
    assert client.get("workspaces/big").status_code == 200
    assert sandbox.sandbox.state()["errors"] == ["EditError: there is no repository no/such"]


def test_split_and_pipelined_requests_are_answered(sandbox: RunningSandbox) -> None:
    """Also HEAD; and what is not HTTP is refused."""
    port = int(sandbox.origin.rpartition(":")[2])
    ask = b"GET /2.0/workspaces/big HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(ask[:10])
        time.sleep(0.02)
        raw.sendall(
            ask[10:]
            + ask
            + ask.replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        received = b""
        while piece := raw.recv(65536):
            received += piece
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.count(b'"type":"workspace"') == 2
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
