"""What Data Center's API refuses: what is not mirrored, hidden, or a write."""

import pytest
from asgi_client import bearer, client_of
from datacenter_mirror import CLOUD, Mirror, told


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """Filled once: nothing here writes."""
    return Mirror(tmp_path_factory.mktemp("datacenter"))


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
