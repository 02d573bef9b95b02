"""The sandbox as Bitbucket Data Center: projects, its own paging, its errors and its token bucket."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import WITHOUT_TLS

from mirror.sandbox import (
    ANONYMOUS,
    TOKEN,
    Principal,
    RunningSandbox,
    Sandbox,
    World,
    running,
    visible_repositories,
)

BEARER = {"Authorization": "Bearer sandbox"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with running(Sandbox(World(400, workspaces=3))) as found:
        yield found


@pytest.fixture(scope="module")
def client(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    with httpx.Client(
        verify=WITHOUT_TLS, base_url=f"{sandbox.origin}/rest/api/latest", trust_env=False
    ) as found:
        yield found


def walk(client: httpx.Client, path: str, limit: int, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Follow nextPageStart to the last page."""
    rows, start = [], 0
    while True:
        parameters: dict[str, str | int] = {"limit": limit, "start": start, "archived": "ALL"}
        page = client.get(path, params=parameters, headers=headers).json()
        assert page["size"] == len(page["values"]) <= page["limit"] == min(100, limit)
        assert page["start"] == start
        rows += page["values"]
        if page["isLastPage"]:
            assert page.get("nextPageStart") is None
            return rows
        start = page["nextPageStart"]


def names(sandbox: RunningSandbox, caller: Principal) -> set[str]:
    return {row["full_name"].lower() for row in visible_repositories(sandbox.sandbox.world, caller)}


@settings(max_examples=examples(10))
@given(limit=st.integers(1, 130), everything=st.booleans())
def test_pages_of_any_size_contain_each_repository_once(
    sandbox: RunningSandbox, client: httpx.Client, limit: int, everything: bool
) -> None:
    """For a token and for an anonymous caller."""
    rows = walk(client, "repos", limit, BEARER if everything else {})
    found = [f"{row['project']['key'].strip('~')}/{row['slug']}".lower() for row in rows]
    assert len(found) == len(set(found))
    assert set(found) == names(sandbox, TOKEN if everything else ANONYMOUS)
    assert len({row["id"] for row in rows}) == len(rows)


def test_the_next_page_does_not_start_at_start_plus_limit(client: httpx.Client) -> None:
    """A client that adds start and limit gets rows twice."""
    page = client.get("repos", params={"limit": 25}).json()
    assert page["nextPageStart"] > 25
    assert client.get("repos", params={"limit": 25, "start": 25}).json()["values"][0] in page["values"]


def test_projects_list_their_repositories(sandbox: RunningSandbox, client: httpx.Client) -> None:
    """A workspace is a normal or personal project. Their lists together are the list of all."""
    projects = walk(client, "projects", 4, BEARER)
    assert {project["type"] for project in projects} == {"NORMAL", "PERSONAL"}
    personal = next(project for project in projects if project["type"] == "PERSONAL")
    assert personal["key"] == "~JESPERN"
    assert "public" not in personal
    rows = [row for each in projects for row in walk(client, f"projects/{each['key']}/repos", 100, BEARER)]
    assert len(rows) == 400
    forks = [row for row in rows if "origin" in row]
    assert forks
    assert all("origin" not in fork["origin"] for fork in forks)
    assert any("description" not in row for row in rows)
    assert all("created_on" not in row for row in rows)


def test_listings_are_filtered(client: httpx.Client) -> None:
    """By name, project, visibility, and whether it is archived: unless told, it is not."""
    found = client.get("repos", params={"name": " PISTON "}).json()["values"]
    assert {row["slug"] for row in found} >= {"django-piston"}
    found = client.get("repos", params={"projectkey": "~jespern", "visibility": "private"}, headers=BEARER)
    assert found.json()["size"] == 4
    (archived,) = client.get("repos", params={"archived": "ARCHIVED"}).json()["values"]
    assert (archived["slug"], archived["archived"]) == ("hello-asd", True)
    for query, is_listed in (("", False), ("&archived=ALL", True)):
        rows = client.get(f"repos?name={archived['name']}{query}").json()["values"]
        assert any(row.get("archived") for row in rows) is is_listed


def test_refs_and_the_default_branch(client: httpx.Client) -> None:
    """Branches and tags with their commits. An empty repository has no default branch."""
    here = "projects/1TEAM/repos/special-refs"
    branches = walk(client, f"{here}/branches", 3, {})
    assert [row["displayId"] for row in branches if row["isDefault"]] == ["master"]
    assert all(row["id"] == f"refs/heads/{row['displayId']}" for row in branches)
    tags = walk(client, f"{here}/tags", 100, {})
    assert {row["hash"] is None for row in tags} == {True, False}
    default = client.get(f"{here}/default-branch").json()
    assert default == client.get(f"{here}/branches/default").json()
    assert default["displayId"] == "master"
    filtered = client.get(f"{here}/branches", params={"filterText": "BB-", "details": "true"}).json()[
        "values"
    ]
    assert [row["displayId"] for row in filtered] == ["feature/BB-1"]
    (details,) = filtered[0]["metadata"].values()
    assert isinstance(details["authorTimestamp"], int)
    assert client.get("projects/1TEAM/repos/never-pushed/default-branch").status_code == 404
    hg = client.get("projects/~JESPERN/repos/django-piston/tags").json()["values"]
    assert [row["displayId"] for row in hg] == ["0.2.1", "0.2.2", "0.2.3"]


@pytest.mark.parametrize(
    ("path", "status", "exception"),
    [
        ("projects/NOPE", 404, "NoSuchProjectException"),
        ("projects/JESPERN", 404, "NoSuchProjectException"),
        ("projects/~JESPERN/repos/nope", 404, "NoSuchRepositoryException"),
        ("projects/~JESPERN/repos/arriving", 401, "AuthorisationException"),
        ("users", 401, "AuthorisationException"),
        ("repos?limit=x", 400, "ArgumentValidationException"),
        ("nonsense", 404, "None"),
    ],
)
def test_errors_have_the_recorded_form(client: httpx.Client, path: str, status: int, exception: str) -> None:
    """A list of one error with the name of an exception. Missing permission is 401."""
    answer = client.get(path)
    (problem,) = answer.json()["errors"]
    assert (answer.status_code, str(problem["exceptionName"]).rpartition(".")[2]) == (status, exception)
    assert problem["context"] is None


def test_a_login_or_a_token_gives_access(client: httpx.Client) -> None:
    """A Basic login or the token gives access; wrong ones have their own error."""
    jespern = ("jespern", "sandbox")
    assert client.get("projects/~JESPERN/repos/arriving", auth=jespern).status_code == 200
    assert (
        client.get("users", params={"filter": "noehr"}, auth=jespern).json()["values"][0]["name"] == "jespern"
    )
    assert client.get("users/jespern", auth=jespern).json()["displayName"] == "Jesper Noehr"
    refused = client.get("repos", auth=("jespern", "wrong"))
    assert refused.status_code == 401
    assert "IncorrectPassword" in refused.json()["errors"][0]["exceptionName"]
    assert client.get("application-properties").json()["version"]


def test_the_token_bucket_answers_429_with_retry_after() -> None:
    """After that time, one more request is allowed."""
    sandbox = Sandbox(World(20))
    sandbox.options.change({"bucket_size": 3, "bucket_refill": 1})
    with (
        running(sandbox) as found,
        httpx.Client(verify=WITHOUT_TLS, base_url=f"{found.origin}/rest/api/1.0", trust_env=False) as client,
    ):
        answers = [client.get("repos") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["errors"]
        assert client.get("repos", headers=BEARER).status_code == 200
        sandbox.advance(int(answers[3].headers["retry-after"]))
        assert client.get("repos").status_code == 200
