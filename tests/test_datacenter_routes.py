"""Data Center's API, read side: addresses, keys, ids, pages, filters, users and tokens."""

from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from asgi_client import basic, bearer, client_of
from datacenter_mirror import Mirror, cloud, told
from examples import examples
from fixtures_db import FixtureDb
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """Filled once: nothing here writes."""
    return Mirror(tmp_path_factory.mktemp("datacenter"))


def test_both_versions_answer_below_a_prefix_too(mirror: Mirror, tmp_path: Path) -> None:
    """`latest` is 1.0; a final slash does not matter; a proxy may add a path."""
    for api in ("1.0", "latest"):
        for slash in ("", "/"):
            answer = mirror.get(f"projects/acme-inc{slash}", api=api)
            assert (answer.status_code, answer.json()["key"]) == (200, "acme-Inc")
    filled = FixtureDb(tmp_path / "mirror.db")
    cloud(filled)
    filled.store.close()
    below = client_of(tmp_path / "mirror.db", public_url="https://code.example.com/deep/mirror")
    for path in ("/rest/api/1.0/projects/ACME-INC", "/rest/api/latest/projects/ACME-INC"):
        links = below.json(path)["links"]  # the client puts the prefix before the path
        assert links["mirror"] == [{"href": "https://code.example.com/deep/mirror/-/u/acme-Inc"}]


def test_a_workspace_is_a_project(mirror: Mirror) -> None:
    """With the keys of a real one, in any case; a person's has a tilde and an owner."""
    team = mirror.json("projects/ACME-INC")
    assert set(team) == {"key", "id", "name", "public", "type", "links"}
    assert (team["key"], team["name"], team["type"], team["public"]) == (
        "acme-Inc",
        "Åcme Inc",
        "NORMAL",
        True,
    )
    assert mirror.json("projects/acme-inc", mirror.token)["public"] is False  # who sees the private one
    person = mirror.json("projects/~ANN")
    assert set(person) == {"key", "id", "name", "type", "owner", "links"}
    assert (person["key"], person["type"], person["owner"]["slug"]) == ("~ann", "PERSONAL", "ann")
    assert mirror.json("projects/ann") == person
    assert told(mirror.get("projects/~acme-inc")) == "Project ~acme-inc does not exist."
    assert mirror.names("projects") == ["acme-Inc", "~ann", "PRJ", "~BOB"]
    assert mirror.names("projects?name=%20%C3%A5CME") == ["acme-Inc"]
    assert (
        mirror.names("users/ann/repos") == mirror.names("projects/~ann/repos") == ["empty", "orphan", "tool"]
    )


def test_keys_and_ids_of_a_data_center_upstream_are_kept(mirror: Mirror) -> None:
    """No other object has an id that a Data Center might use."""
    project = mirror.json("projects/prj")
    assert (project["key"], project["id"], project["public"], project["description"]) == (
        "PRJ",
        8,
        True,
        "All of it",
    )
    assert project["links"]["self"] == [{"href": "https://dc.example.com/x/projects/PRJ"}]
    one = mirror.json("projects/PRJ/repos/ONE")
    assert (one["id"], one["archived"], one["project"]) == (3, False, project)
    assert one["links"]["self"] == [{"href": "https://dc.example.com/x/projects/PRJ/repos/one/browse"}]
    bob = mirror.json("projects/~bob")
    assert (bob["key"], bob["id"]) == ("~BOB", 9)
    assert "id" not in bob["owner"]  # nobody told it: 9 is the project's
    assert bob["links"]["self"] == [{"href": "https://dc.example.com/x/users/bob"}]
    ids = [row["id"] for row in mirror.json("repos?archived=ALL", mirror.token)["values"]]
    assert len(set(ids)) == len(ids) == 9
    assert sorted(ids)[:3][:2] == [3, 4]
    assert all(2**30 < number < 2**31 for number in sorted(ids)[2:])


def test_a_repository_has_the_keys_of_a_real_one(mirror: Mirror) -> None:
    """Unknown values are left out, as by old servers; links lead to the upstream."""
    tool = mirror.json("projects/acme-inc/repos/TOOL")
    known = {"slug", "id", "name", "description", "scmId", "state", "statusMessage", "forkable", "project"}
    assert set(tool) == known | {"public", "links"}
    assert (tool["name"], tool["scmId"], tool["state"], tool["forkable"]) == (
        "The Tool",
        "git",
        "AVAILABLE",
        True,
    )
    assert tool["links"]["clone"] == [
        {"href": "https://bitbucket.org/acme-Inc/tool.git", "name": "http"},
        {"href": "git@bitbucket.org:acme-Inc/tool.git", "name": "ssh"},
    ]
    assert tool["links"]["self"] == [{"href": "https://api.example.com/acme-Inc/tool"}]
    assert tool["links"]["mirror"] == [{"href": "http://localhost/-/r/acme-Inc/tool"}]
    fork = mirror.json("projects/~ann/repos/tool")
    assert fork["origin"] == tool
    assert mirror.names("projects/acme-inc/repos/tool/forks") == ["tool"]
    assert "origin" not in mirror.json("projects/~ann/repos/orphan")
    far = mirror.json("projects/~ann/repos/orphan", mirror.token)["origin"]
    assert far == {"slug": "away", "name": "away", "project": {"key": "far"}}
    assert mirror.json("projects/acme-inc/repos/old")["forkable"] is False


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["tool", "unread", "empty", "orphan", "tool", "one", "two"]),
        ("archived=all", ["old", "tool", "unread", "empty", "orphan", "tool", "one", "two"]),
        ("archived=ARCHIVED", ["old"]),
        ("name=+THE+t+", ["tool"]),
        ("name=%25", []),
        ("projectname=cme", ["tool", "unread"]),
        ("projectkey=ACME-inc&name=unr", ["unread"]),
        ("projectkey=~Ann", ["empty", "orphan", "tool"]),
        ("projectkey=acme", []),
        ("visibility=private", []),
        ("visibility=public&projectkey=prj", ["one"]),
        ("state=OFFLINE", []),
        ("permission=REPO_ADMIN", []),
    ],
)
def test_repositories_are_filtered(mirror: Mirror, query: str, found: list[str]) -> None:
    """By name, project, visibility, state, rights; archived ones only on request."""
    assert mirror.names(f"repos?{query}") == found


def test_filters_match_visible_rows_only(mirror: Mirror) -> None:
    """Rights are those of the workspace's members."""
    assert mirror.names("repos?visibility=private", mirror.token) == ["secret"]
    assert mirror.names("repos?name=s%C3%89c", mirror.of_ann) == ["secret"]
    assert mirror.names("repos?name=s%C3%89c") == []
    assert mirror.names("repos?permission=REPO_ADMIN&projectkey=prj", mirror.of_ann) == []
    assert "secret" in mirror.names("repos?permission=REPO_ADMIN", mirror.of_ann)
    assert mirror.names("projects?permission=PROJECT_ADMIN", mirror.of_ann) == ["acme-Inc", "~ann"]


def test_next_page_start_leads_to_the_next_page(mirror: Mirror) -> None:
    """Every row once; the last page has no next one, and no page has the total."""
    whole, start, walked = mirror.names("repos"), 0, list[str]()
    while True:
        page = mirror.json(f"repos?limit=2&start={start}")
        walked += [row["slug"] for row in page["values"]]
        assert (page["limit"], page["start"], page["size"]) == (2, start, len(page["values"]))
        if page["isLastPage"]:
            assert "nextPageStart" not in page
            break
        start = page["nextPageStart"]
    assert walked == whole
    beyond = mirror.json("repos?start=1000")
    assert (beyond["values"], beyond["isLastPage"]) == ([], True)
    assert mirror.json("repos?limit=100000")["limit"] == 1000
    assert mirror.json("repos?limit=")["limit"] == 25


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "start=-1", "start=1.5", "start=9999999999", "limit=%D9%A1"]
)
def test_an_invalid_number_is_refused(mirror: Mirror, query: str) -> None:
    """With the name of the parameter."""
    for path in ("projects", "repos", "projects/acme-inc/repos/tool/tags"):
        answer = mirror.get(f"{path}?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["context"] == query.partition("=")[0]
        assert told(answer).startswith(query.partition("=")[0])


def test_users_need_credentials(mirror: Mirror) -> None:
    """Strangers get 401; others get their own name."""
    for path in ("users", "users/ann", "users?filter=a"):
        answer = mirror.get(path)
        assert (answer.status_code, told(answer)) == (401, "You are not permitted to access this resource")
        assert "WWW-Authenticate" in answer.headers
    ann = mirror.json("users/ANN", mirror.token)
    assert set(ann) == {"name", "id", "displayName", "active", "slug", "type", "links"}
    assert [user["name"] for user in mirror.json("users?filter=OTHER", mirror.token)["values"]] == ["ann"]
    assert [user["name"] for user in mirror.json("users", mirror.token)["values"]] == ["ann", "BOB"]
    assert mirror.get("users/nobody", mirror.token).status_code == 404
    assert mirror.get("projects", mirror.of_ann).headers["X-AUSERNAME"] == "ann"
    assert "X-AUSERNAME" not in mirror.get("projects").headers


def test_tokens_are_taken_as_bearer_and_as_basic(mirror: Mirror) -> None:
    """A credential that is not accepted is 401, in this API's form."""
    for headers in (bearer(mirror.token), basic("whoever", mirror.token)):
        answer = mirror.client.get("/rest/api/1.0/projects/acme-inc/repos/secret", headers=headers)
        assert (answer.status_code, answer.json()["public"]) == (200, False)
    for headers in (bearer("mir_no"), basic("ann", "no")):
        answer = mirror.client.get("/rest/api/1.0/projects", headers=headers)
        assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (401, True)
        assert answer.json()["errors"][0]["exceptionName"].endswith(
            "IncorrectPasswordAuthenticationException"
        )


def test_rights_on_a_project_are_for_members(mirror: Mirror) -> None:
    """As rights of users; other callers are refused."""
    path = "projects/acme-inc/permissions/users"
    assert mirror.get(path).status_code == 401
    (right,) = mirror.json(path, mirror.of_ann)["values"]
    assert (right["user"]["name"], right["permission"]) == ("ann", "PROJECT_ADMIN")
    assert mirror.get("projects/PRJ/permissions/users", mirror.of_ann).status_code == 401


def test_application_properties_name_the_server(mirror: Mirror) -> None:
    """Clients parse the version as numbers."""
    told = mirror.json("application-properties")
    assert told["displayName"] == "Bitbucket"
    assert [int(part) for part in told["version"].split(".")] >= [8]
    assert int(told["buildNumber"]) > 8_000_000


def test_answers_tell_their_age(mirror: Mirror) -> None:
    """As in all APIs of the mirror."""
    for path in ("projects", "projects/acme-inc", "repos", "projects/acme-inc/repos/tool/tags"):
        assert mirror.get(path).headers["X-Mirror-Synced-At"] == "2026-11-01T12:00:00.000000Z", path


TEXTS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "25",
        "2147483647",
        "99999999999",
        "true",
        "public",
        "ALL",
        "a",
        "%",
        "'",
        "\x00",
        "~",
        "é",
    ]
) | st.text(max_size=12)
PATHS = (
    *("projects", "repos", "users", "admin", "application-properties", "users/ann", "projects/acme-inc"),
    *("projects/~ann/repos", "projects/acme-inc/permissions/users", "projects/acme-inc/repos/tool"),
    *(f"projects/acme-inc/repos/tool/{what}" for what in ("branches", "tags", "commits", "default-branch")),
)
PARAMETERS = (
    *("start", "limit", "name", "filterText", "orderBy", "details", "boostMatches", "projectname"),
    *("projectkey", "visibility", "archived", "permission", "state", "filter", "access_token"),
)


@settings(max_examples=examples(80))
@given(
    path=st.sampled_from(PATHS),
    more=st.none() | TEXTS,
    query=st.dictionaries(st.sampled_from(PARAMETERS), TEXTS, max_size=4),
    known=st.booleans(),
)
def test_random_requests_never_fail(
    mirror: Mirror, path: str, more: str | None, query: dict[str, str], known: bool
) -> None:
    """Any parameters and any path get an answer in this API's format, never 500."""
    end = f"/{quote(more, safe='')}" if more else ""
    answer = mirror.get(f"{path}{end}?{urlencode(query)}", mirror.token if known else None)
    assert answer.status_code in (200, 400, 401, 404, 501), answer.text
    if answer.status_code != 200:
        assert told(answer)
