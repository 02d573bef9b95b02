"""Data Center's API, read side: addresses, keys, ids, pages, filters, and what is not mirrored."""

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from asgi_client import basic, bearer, client_of
from examples import examples
from fixtures_db import FixtureDb, hg_ref, owner, repository
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.store import tokens
from mirror.upstream import datacenter_decode as decode

ACME = owner("acme-Inc", display_name="Åcme Inc", kind="workspace")
ANN = owner("ann", display_name="Ann Other", nickname="ann")
NAMES = ("main", "Main-street", "feature/main", "domain", "zz", "AA")
AUTHOR = "Ann <ann@example.com>"
CLOUD = "https://api.example.com/2.0/repositories/acme-Inc/tool"
"""Where Bitbucket Cloud's API has a repository."""


class Mirror:
    """A mirror of Bitbucket Cloud and of a Data Center, served."""

    def __init__(self, filled: FixtureDb) -> None:
        self.path = filled.path
        self.token = tokens.create(filled.store, "reader", "read")
        self.of_ann = tokens.create(filled.store, "of ann", "read", user="ann")
        self.client = client_of(filled.path)

    def get(self, path: str, token: str | None = None, api: str = "1.0") -> httpx.Response:
        """Ask, as a stranger or with a token."""
        return self.client.get(f"/rest/api/{api}/{path}", headers=bearer(token) if token else {})

    def json(self, path: str, token: str | None = None) -> Any:
        """Ask for what must be there."""
        answer = self.get(path, token)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    def names(self, path: str, token: str | None = None) -> list[str]:
        """Ask for a list, and name its rows."""
        return [
            one.get("displayId") or one.get("slug") or one["key"] for one in self.json(path, token)["values"]
        ]


def cloud(filled: FixtureDb) -> None:
    """Save what Bitbucket Cloud sent: a team with a fork, archived and private repositories, and a person."""
    parent = repository(
        "acme-Inc/tool", ACME, name="The Tool", main_branch="main", description="All",
        clone_https="https://bitbucket.org/acme-Inc/tool.git",
        clone_ssh="git@bitbucket.org:acme-Inc/tool.git",
    )  # fmt: skip
    filled.repositories(
        [
            parent,
            repository("acme-Inc/old", ACME, archived=True, fork_policy="no_forks"),
            repository("acme-Inc/secret", ACME, is_private=True, name="Sécret"),
            repository("acme-Inc/unread", ACME),
            repository("ann/tool", ANN, parent_uuid=parent.uuid, parent_full_name=parent.full_name),
            repository("ann/empty", ANN, main_branch=None),
            repository("ann/orphan", ANN, parent_uuid="{far}", parent_full_name="far/away"),
        ],
        first=True,
    )
    refs = [
        hg_ref("branch", name, "a", target_author=AUTHOR, target_date=f"2020-01-0{at + 1}T00:00:00.123000Z")
        for at, name in enumerate(NAMES)
    ]
    tags = [
        hg_ref("tag", "v/1", "b"),
        hg_ref("tag", "v2", "c", message="Two", tagger=AUTHOR, date="2021-01-01T00:00:00.000000Z"),
    ]
    filled.refs("acme-Inc/tool", [*refs, *tags])
    for full_name in ("ann/tool", "ann/empty", "acme-Inc/old", "acme-Inc/secret"):
        filled.refs(full_name, ())
    filled.members(ACME, [ANN])


def datacenter(filled: FixtureDb) -> None:
    """Save what a Data Center sent, whose repository and project have small ids."""
    filled.upstream_id = filled.store.save_upstream(
        "dc", "datacenter", "https://dc.example.com/x/rest/api/1.0"
    )
    project = decode.ProjectJson(key="PRJ", id=8, name="Project", public=True, description="All of it")
    personal = decode.ProjectJson(key="~BOB", id=9, name="Bob", type="PERSONAL")
    rows = [
        decode.RepositoryJson(slug="one", id=3, project=project, public=True, archived=False),
        decode.RepositoryJson(slug="two", id=4, project=personal, public=True),
    ]
    filled.repositories([decode.to_repository(row) for row in rows], first=True)
    filled.store.save_owner(
        filled.upstream_id, decode.to_project(project), run_id=None, seen_at="2026-11-01T12:00:00.000000Z"
    )


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """Filled once: nothing here writes."""
    filled = FixtureDb(tmp_path_factory.mktemp("datacenter") / "mirror.db")
    cloud(filled)
    datacenter(filled)
    made = Mirror(filled)
    filled.store.close()
    return made


def told(answer: httpx.Response) -> str:
    """Return the message of an error, which must have this API's format."""
    (error,) = answer.json()["errors"]
    assert set(error) == {"context", "message", "exceptionName"}
    assert answer.headers["content-type"].startswith("application/json")
    return str(error["message"])


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


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["AA", "zz", "domain", "feature/main", "Main-street", "main"]),
        ("orderBy=MODIFICATION", ["AA", "zz", "domain", "feature/main", "Main-street", "main"]),
        ("orderBy=alphabetical", ["AA", "Main-street", "domain", "feature/main", "main", "zz"]),
        ("orderBy=ALPHABETICAL&filterText=MAIN", ["Main-street", "domain", "feature/main", "main"]),
        (
            "orderBy=ALPHABETICAL&filterText=MAIN&boostMatches=true",
            ["main", "Main-street", "domain", "feature/main"],
        ),
        ("filterText=main&boostMatches=true", ["main", "Main-street", "domain", "feature/main"]),
        ("filterText=a_n", []),
    ],
)
def test_branches_are_found_and_ordered(mirror: Mirror, query: str, found: list[str]) -> None:
    """The newest commit first; with `boostMatches` the whole name, then names that begin with it."""
    assert mirror.names(f"projects/acme-inc/repos/tool/branches?{query}") == found


def test_matches_are_boosted_in_any_script(tmp_path: Path) -> None:
    """The whole name and its beginning are compared as the filter compares."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("acme-Inc/tool", ACME)], first=True)
    names = ("a-über", "ÜBER", "Übergang", "straße", "strasse-2")
    filled.refs("acme-Inc/tool", [hg_ref("branch", name, "a") for name in names])
    filled.store.close()
    client = client_of(tmp_path / "mirror.db")
    asked = "/rest/api/1.0/projects/acme-inc/repos/tool/branches?boostMatches=true&orderBy=ALPHABETICAL"
    for text, found in (("über", ["ÜBER", "Übergang", "a-über"]), ("STRASSE", ["straße", "strasse-2"])):
        rows = client.json(f"{asked}&filterText={text}")["values"]
        assert [row["displayId"] for row in rows] == found


def test_branches_tell_their_latest_commit(mirror: Mirror) -> None:
    """If details are requested; the default branch is marked."""
    here = "projects/acme-inc/repos/tool"
    (plain, *_) = mirror.json(f"{here}/branches?filterText=main&boostMatches=true")["values"]
    assert plain == {
        "id": "refs/heads/main", "displayId": "main", "type": "BRANCH", "latestCommit": "a" * 40,
        "latestChangeset": "a" * 40, "isDefault": True,
    }  # fmt: skip
    assert mirror.json(f"{here}/default-branch") == mirror.json(f"{here}/branches/default") == plain
    (full, *_) = mirror.json(f"{here}/branches?filterText=main&boostMatches=true&details=true")["values"]
    (latest,) = full["metadata"].values()
    assert latest == {
        "id": "a" * 40, "displayId": "a" * 11, "message": "Work on main\n", "authorTimestamp": 1577836800123,
        "author": {"name": "Ann", "emailAddress": "ann@example.com", "displayName": "jespern"},
        "parents": [{"id": "0" * 40, "displayId": "0" * 11}],
    }  # fmt: skip
    assert decode.to_branch(decode.RefJson(id="refs/heads/x", latest_commit="1")).name == "x"


def test_commits_that_refs_name_are_served(mirror: Mirror) -> None:
    """By whole or short hash, in any case; lists of commits and everything below a commit are 501."""
    here = "projects/acme-inc/repos/tool/commits"
    whole = mirror.json(f"{here}/{'a' * 40}")
    (first, *_) = mirror.json("projects/acme-inc/repos/tool/branches?filterText=AA&details=true")["values"]
    assert [whole] == list(first["metadata"].values())
    assert mirror.json(f"{here}/AAAA") == mirror.json(f"{here}/AA") == whole
    assert mirror.json(f"{here}/{'b' * 40}")["displayId"] == "b" * 11
    assert mirror.get("projects/acme-inc/repos/unread/commits/aaaa").status_code == 503


def test_tags_are_listed_and_found(mirror: Mirror) -> None:
    """Also with escaped or plain slashes; `hash` is null for a tag known to have no annotation."""
    here = "projects/acme-inc/repos/tool/tags"
    assert mirror.names(here) == ["v2", "v/1"]
    assert mirror.names(f"{here}?filterText=V2") == ["v2"]
    plain = mirror.json(f"{here}/v/1")
    assert plain == mirror.json(f"{here}/v%2F1") == mirror.json(f"{here}/refs/tags/v/1")
    assert (plain["id"], plain["type"], plain["latestCommit"], plain["hash"]) == (
        "refs/tags/v/1",
        "TAG",
        "b" * 40,
        None,
    )
    assert "hash" not in mirror.json(f"{here}/v2")
    assert mirror.get(f"{here}/none").status_code == 404


def test_unread_refs_are_not_an_empty_list(mirror: Mirror) -> None:
    """503 until they are read; an empty repository has no refs and no default branch."""
    for what in ("branches", "tags", "default-branch", "tags/v1"):
        answer = mirror.get(f"projects/acme-inc/repos/unread/{what}")
        assert (answer.status_code, answer.headers["X-Mirror-Refs"]) == (503, "not read yet")
        assert "not been read yet" in told(answer)
    assert mirror.names("projects/~ann/repos/empty/branches") == []
    answer = mirror.get("projects/~ann/repos/empty/default-branch")
    assert (answer.status_code, "no default branch" in told(answer)) == (404, True)


def test_refs_that_are_not_mirrored_are_501(tmp_path: Path) -> None:
    """With the address, or as a redirect: `branches` and `tags` have the same names at Cloud."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.store.save_upstream("cloud", "cloud", "https://api.example.com/2.0", refs="none")
    filled.repositories([repository("acme-Inc/tool", ACME)], first=True)
    filled.store.close()
    plain, leading = (client_of(filled.path, redirect_unmirrored=switch) for switch in (False, True))
    for what, there, status in (
        ("branches?limit=2", "/refs/branches?limit=2", 307),
        ("tags", "/refs/tags", 307),
        ("tags/v/1", "/refs/tags/v/1", 307),
        ("default-branch", "", 501),
    ):
        path = f"/rest/api/1.0/projects/acme-inc/repos/tool/{what}"
        answer = plain.get(path)
        assert (answer.status_code, answer.headers["X-Mirror-Refs"]) == (501, "not mirrored")
        assert told(answer) == f"This mirror holds no branches and tags; ask {CLOUD}{there}"
        answer = leading.get(path)
        assert (answer.status_code, answer.headers.get("Location", f"{CLOUD}{there}")) == (
            status,
            f"{CLOUD}{there}",
        )


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


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "projects/acme-inc/repos/tool/pull-requests?state=ALL",
            f"no pull requests; ask {CLOUD}/pullrequests?state=ALL",
        ),
        ("projects/acme-inc/repos/tool/pull-requests/7", f"no pull requests; ask {CLOUD}/pullrequests/7"),
        ("projects/acme-inc/repos/tool/commits", f"no commits; ask {CLOUD}/commits"),
        (
            "projects/acme-inc/repos/tool/commits/abc",
            f"no commits but those that branches and tags name; ask {CLOUD}/commit/abc",
        ),
        ("projects/acme-inc/repos/tool/commits/abc/builds", f"no commits; ask {CLOUD}"),
        ("projects/acme-inc/repos/tool/browse/src/a%20b.py?at=x", f"no files; ask {CLOUD}"),
        ("projects/acme-inc/repos/tool/invented/by/me", f"no invented; ask {CLOUD}"),
        (
            "projects/acme-inc/settings/hooks",
            "no settings; ask https://api.example.com/2.0/workspaces/acme-Inc",
        ),
        (
            "projects/prj/repos/one/pull-requests/1/activities",
            "ask https://dc.example.com/x/rest/api/1.0/projects/PRJ/repos/one/pull-requests/1/activities",
        ),
        ("projects/prj/avatar.png", "ask https://dc.example.com/x/rest/api/1.0/projects/PRJ/avatar.png"),
        ("admin/users", "no administration"),
        ("inbox/pull-requests", "no pull requests"),
    ],
)
def test_unmirrored_resources_are_501(mirror: Mirror, path: str, said: str) -> None:
    """With the upstream's address, not to be cached, and never an empty list."""
    answer = mirror.get(path)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (501, "no-store")
    assert said in told(answer)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("build-status/1.0/commits/abc", "no builds; ask the upstream"),
        ("build-status/latest/commits/stats/abc/", "no builds; ask the upstream"),
        ("mirroring/latest/mirrorServers", "no mirrors of the server; ask the upstream"),
        ("mirroring", "no mirrors of the server; ask the upstream"),
        ("ssh/1.0/keys?user=x", "no keys; ask the upstream"),
        ("capabilities", "no capabilities; ask the upstream"),
        (
            "branch-permissions/2.0/projects/acme-inc/repos/tool/restrictions",
            f"no branch permissions; ask {CLOUD}",
        ),
        (
            "access-tokens/latest/projects/ACME-inc",
            "no access tokens; ask https://api.example.com/2.0/workspaces/acme-Inc",
        ),
        (
            "keys/1.0/projects/prj/repos/one/ssh/a%20b?x=1",
            "no keys; ask https://dc.example.com/x/rest/keys/1.0/projects/prj/repos/one/ssh/a%20b?x=1",
        ),
        (
            "sync/latest/projects/prj",
            "no settings of forks; ask https://dc.example.com/x/rest/sync/latest/projects/prj",
        ),
    ],
)
def test_the_other_apis_of_a_data_center_are_501(mirror: Mirror, path: str, said: str) -> None:
    """In this API's format, for reads and writes; APIs that do not exist are 404."""
    for method in ("GET", "POST", "DELETE"):
        answer = mirror.client(method, f"/rest/{path}")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (501, "no-store"), answer.text
        assert said in told(answer)
    assert mirror.client("OPTIONS", f"/rest/{path}").headers["Allow"] == "GET, HEAD, OPTIONS"


def test_other_apis_tell_nothing_of_what_is_hidden(mirror: Mirror) -> None:
    """Hidden and unknown are the same 404; people need credentials; unknown APIs are 404."""
    for api in ("build-status/latest", "branch-utils/1.0", "insights/1.0"):
        path = f"/rest/{api}/projects/acme-inc/repos/"
        hidden, missing = (mirror.client.get(f"{path}{slug}/x") for slug in ("secret", "absent"))
        assert hidden.status_code == missing.status_code == 404
        assert "does not exist" in told(hidden)
        assert hidden.content.replace(b"secret", b"absent") == missing.content
        assert mirror.client.get(f"/rest/{api}/projects/nobody").status_code == 404
        assert mirror.client.get(f"{path}secret/x", headers=bearer(mirror.token)).status_code == 501
    assert mirror.client.get("/rest/access-tokens/latest/users/ann").status_code == 401
    of_ann = mirror.client.get("/rest/access-tokens/latest/users/ann", headers=bearer(mirror.of_ann))
    assert (of_ann.status_code, "no access tokens" in told(of_ann)) == (501, True)
    for path in ("invented/1.0/x", "invented/latest", "api/2.0/projects", "api/1.1", "api", "api/"):
        assert "no API hosted" in told(mirror.client.get(f"/rest/{path}")), path
    leading = client_of(mirror.path, redirect_unmirrored=True)
    answer = leading.get("/rest/git/1.0/projects/PRJ/repos/one/tags?access_token=mir_x")
    assert answer.status_code == 401
    answer = leading.get("/rest/git/1.0/projects/PRJ/repos/one/tags")
    assert answer.headers["Location"] == "https://dc.example.com/x/rest/git/1.0/projects/PRJ/repos/one/tags"
    assert leading.get("/rest/git/1.0/projects/acme-inc/repos/tool/tags").status_code == 501


@pytest.mark.parametrize("more", ["", "/branches", "/pull-requests", "/commits/abc", "/whatever"])
def test_hidden_and_unknown_are_the_same(mirror: Mirror, more: str) -> None:
    """Byte for byte, before any message about data that is not mirrored."""
    hidden = mirror.get(f"projects/acme-inc/repos/secret{more}")
    missing = mirror.get(f"projects/acme-inc/repos/absent{more}")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.content.replace(b"secret", b"absent") == missing.content
    told = {name: text.replace("secret", "absent") for name, text in hidden.headers.items()}
    assert told == dict(missing.headers)


def test_redirect_unmirrored_answers_307(mirror: Mirror) -> None:
    """Only to the same object, without the caller's token: never to a repository instead of a file."""
    leading = client_of(mirror.path, redirect_unmirrored=True)
    here = "/rest/api/latest/projects"
    for path, location in (
        ("acme-inc/repos/tool/pull-requests?state=ALL", f"{CLOUD}/pullrequests?state=ALL"),
        (
            "PRJ/repos/one/browse/a%20b",
            "https://dc.example.com/x/rest/api/1.0/projects/PRJ/repos/one/browse/a%20b",
        ),
    ):
        mark = "&" if "?" in path else "?"
        for method in ("GET", "HEAD"):
            answer = leading(method, f"{here}/{path}{mark}access_token={mirror.token}")
            assert (answer.status_code, answer.headers["Location"]) == (307, location)
            assert "no-store" in answer.headers["Cache-Control"]
        assert leading("POST", f"{here}/{path}").status_code == 501
    assert leading.get(f"{here}/acme-inc/repos/tool/browse/a.py").status_code == 501
    for path in ("acme-inc/repos/secret/commits", "nobody/repos/x/commits"):
        assert leading.get(f"{here}/{path}").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_writes_are_405(mirror: Mirror, method: str) -> None:
    """At every address that can be read, for all callers, with the allowed methods; others are 501 or 404."""
    for path in ("projects", "projects/x/repos", "projects/acme-inc/repos/tool", "repos", "users/ann"):
        answer = mirror.client(method, f"/rest/api/1.0/{path}", json={}, headers=bearer(mirror.token))
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert "read-only" in told(answer)
    for slug, status in (("tool", 501), ("secret", 404), ("absent", 404)):
        path = f"projects/acme-inc/repos/{slug}/pull-requests"
        assert mirror.client(method, f"/rest/api/1.0/{path}", json={}).status_code == status
    assert mirror.get("nothing/of/the/kind").status_code == 404


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
