"""The sandbox's API 1.0: the answers of the first document, and those recorded later."""

import re
from collections.abc import Iterator

import httpx
import pytest
from live_server import WITHOUT_TLS

from mirror.sandbox import Sandbox, World, running

JESPERN = ("jespern", "sandbox")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with (
        running(Sandbox(World(400))) as sandbox,
        httpx.Client(verify=WITHOUT_TLS, base_url=f"{sandbox.origin}/1.0", trust_env=False) as found,
    ):
        yield found


def test_the_examples_of_the_first_document_are_answered(client: httpx.Client) -> None:
    """A user with their public repositories, the caller's own list, and the search."""
    found = client.get("users/jespern/").json()
    (piston,) = found["repositories"]
    assert (piston["slug"], piston["followers_count"], piston["website"]) == ("django-piston", 173, "")
    assert found["user"]["first_name"] == "Jesper"
    assert found["user"]["last_name"] == "Noehr"
    own = client.get("user/repositories/", auth=JESPERN).json()
    assert {(row["owner"], row["slug"], row["is_private"]) for row in own} == {
        ("jespern", "django-piston", False),
        ("jespern", "arriving", True),
        ("jespern", "jespern", True),
        ("jespern", "jespern-jekyll", True),
        ("jespern", "bitbucket-issue-query", True),
        ("erik", "org.eclipse.mylyn.bitbucket", True),
        ("mcatalbas", "codeigniter", False),
        ("brodie", "hg-project", True),
        ("dchambers", "django-piston", False),
    }
    search = client.get("repositories/", params={"name": "Django-"}).json()
    assert search["query"] == "Django-"
    assert search["count"] == len(search["repositories"])
    followers = {row["slug"]: row["followers_count"] for row in search["repositories"]}
    assert (followers["django-registration"], followers["django-profiles"]) == (159, 60)
    assert len({row["owner"] for row in search["repositories"]}) > 3


@pytest.mark.parametrize("prefix", ["/1.0", "/api/1.0", "/!api/1.0"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_all_prefixes_work_with_and_without_a_slash(client: httpx.Client, prefix: str, slash: str) -> None:
    """Without redirects. Names are found in any case."""
    origin = str(client.base_url).removesuffix("/1.0/")
    answer = client.get(f"{origin}{prefix}/repositories/Jespern/Django-Piston{slash}")
    assert (answer.status_code, answer.json()["owner"]) == (200, "jespern")


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [
        ("repositories/jespern/arriving", None, 403),
        ("repositories/jespern/arriving", "jespern", 200),
        ("repositories/jespern/nothing", None, 404),
        ("users/nobody", None, 404),
        ("user", None, 401),
        ("user", "jespern", 200),
        ("user/repositories", None, 401),
        ("repositories/jespern/bitbucket-issue-query/main-branch", "jespern", 404),
        ("repositories/jespern/django-piston/wiki", None, 404),
        ("nonsense", None, 404),
    ],
)
def test_private_and_missing_repositories_have_their_statuses(
    client: httpx.Client, path: str, name: str | None, status: int
) -> None:
    """A private repository is 403 to strangers, and a 401 has no challenge."""
    answer = client.get(path, auth=(name, "sandbox") if name else None)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["message"]
        assert "www-authenticate" not in answer.headers
    assert client.get(path, auth=("jespern", "wrong")).status_code == 401


def test_local_times_are_in_amsterdams_zone(client: httpx.Client) -> None:
    """They are one or two hours ahead of the utc ones, in two formats."""
    from datetime import datetime

    spellings, hours = set(), set()
    for row in client.get("users/big").json()["repositories"]:
        local = datetime.fromisoformat(row["created_on"])
        utc = datetime.fromisoformat(row["utc_created_on"])
        hours.add(round((local - utc.replace(tzinfo=None)).total_seconds() / 3600, 2))
        spellings.add(re.sub(r"\d", "0", row["created_on"]))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", row["utc_created_on"])
    assert hours >= {1, 2}
    assert all(abs(hour - round(hour)) < 0.01 for hour in hours)
    assert spellings == {"0000-00-00 00:00:00", "0000-00-00T00:00:00.000"}


def test_refs_are_objects_by_name(client: httpx.Client) -> None:
    """Tags contain the pseudo tag. The short form flags the main branch."""
    tags = client.get("repositories/jespern/django-piston/tags/").json()
    assert tags.keys() == {"0.2.1", "0.2.2", "0.2.3", "tip"}
    branches = client.get("repositories/jespern/django-piston/branches").json()
    default = branches["default"]
    assert tags["tip"]["raw_node"] == default["raw_node"]
    assert default["raw_node"].startswith(default["node"])
    assert len(default["node"]) == 12
    assert isinstance(default["revision"], int)
    assert default["branch"] == "default"
    short = client.get("repositories/jespern/django-piston/branches-tags").json()
    assert short["branches"][0]["mainbranch"] is True
    assert {tag["name"] for tag in short["tags"]} == tags.keys()
    assert client.get("repositories/jespern/django-piston/main-branch").json() == {"name": "default"}
    git = client.get("repositories/mcatalbas/codeigniter/branches").json()
    assert git["master"]["revision"] is None
    assert client.get("repositories/1team/never-pushed/branches").json() == {}


def test_forks_contain_their_parent_and_followers_are_one_fewer_than_counted(client: httpx.Client) -> None:
    """`fork_of` is a full repository. The account of one follower is gone."""
    fork = client.get("repositories/dchambers/django-piston").json()
    assert fork["is_fork"]
    assert fork["fork_of"]["owner"] == "jespern"
    assert fork["fork_of"]["fork_of"] is None
    assert client.get("repositories/jespern/django-piston").json()["forks_count"] == 2
    followers = client.get("repositories/dchambers/django-piston/followers/").json()
    assert followers["count"] == len(followers["followers"]) + 1
