"""API 2.0 over HTTP: addresses, names, links, pages, fields, order, errors; as clients use it."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import JESPERN, PISTON, PISTON_REFS, SEEN, FixtureDb, fill_mixed, hg_ref, owner, repository

from mirror.queries.repositories import repository_details
from mirror.queries.visibility import OPERATOR
from mirror.store import Store, tokens

PREFIXES = ("/2.0", "/api/2.0", "/!api/2.0", "/%21api/2.0")


class World:
    """A served mirror, the store behind it, and tokens."""

    def __init__(self, filled: FixtureDb) -> None:
        self.filled = filled
        self.tokens = make_tokens(filled.store)
        self.served: AsgiClient = client_of(filled.store.path)

    def get(self, what: str, **options: Any) -> Any:
        """Ask for JSON that must be there."""
        return self.served.json(f"/2.0/{what}", **options)

    def refusal(self, status: int, what: str, **options: Any) -> Any:
        """Send a request that must be refused with a status, and return the error."""
        answer = self.served.get(f"/2.0/{what}", **options)
        assert answer.status_code == status, (what, answer.status_code, answer.text[:300])
        body = answer.json()
        assert body["type"] == "error"
        return body["error"]

    def names(self, what: str, **options: Any) -> list[str]:
        """List the full names on a page."""
        return [row["full_name"] for row in self.get(what, **options)["values"]]

    def holding(self, token: str) -> dict[str, Any]:
        """Options to ask as the holder of a token."""
        return {"headers": bearer(self.tokens[token])}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once; tests that write make their own."""
    filled = fill_mixed(tmp_path_factory.mktemp("world") / "mirror.db")
    filled.members(JESPERN, [JESPERN])
    return World(filled)


ROUTES = (
    "repositories",
    "repositories/jespern",
    "repositories/%7Bjespern-uuid%7D",
    "repositories/jespern/django-piston",
    "repositories/JESPERN/Django-Piston",
    "repositories/jespern/%7Bjespern%2Fdjango-piston%7D",
    "repositories/jespern/django-piston/refs",
    "repositories/jespern/django-piston/refs/branches",
    "repositories/jespern/django-piston/refs/branches/default",
    "repositories/jespern/django-piston/refs/tags",
    "repositories/jespern/django-piston/refs/tags/0.2.1",
    "repositories/jespern/django-piston/forks",
    "repositories/jespern/django-piston/watchers",
    "workspaces",
    "workspaces/jespern",
    "workspaces/%7Bjespern-uuid%7D",
    "workspaces/jespern/members",
    "user",
    "user/workspaces",
    "user/permissions/repositories",
    "users/jespern",
    "users/%7Bjespern-uuid%7D",
)


@pytest.mark.parametrize("route", ROUTES)
def test_every_address_answers_under_every_prefix_with_and_without_a_slash(world: World, route: str) -> None:
    """Without redirects, and equal except for the links."""
    answers = [
        world.served.get(f"{prefix}/{route}{slash}", **world.holding("user"))
        for prefix in PREFIXES
        for slash in ("", "/")
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    bodies = {
        answer.text.replace("/!api/2.0", "/2.0").replace("/%21api/2.0", "/2.0").replace("/api/2.0", "/2.0")
        for answer in answers
    }
    assert len(bodies) == 1


def test_answers_tell_their_age(world: World) -> None:
    """Headers say when the mirror last saw the data, as a time and in seconds."""
    answer = world.served.get("/2.0/repositories/jespern/django-piston")
    assert answer.headers["X-Mirror-Synced-At"] == SEEN
    assert int(answer.headers["Age"]) > 0


def test_a_repository_equals_its_upstreams_object(world: World) -> None:
    """The values of a row have Bitbucket's names again."""
    told = world.get("repositories/jespern/django-piston")
    assert told["uuid"] == PISTON.uuid
    assert told["size"] == PISTON.size
    assert told["mainbranch"] == {"type": "named_branch", "name": "default"}
    assert told["created_on"] == "2011-11-20T18:25:29.000000+00:00"


def test_refs_come_in_the_byte_order_of_their_names(world: World) -> None:
    """Branches and tags are one list, in Bitbucket's default order."""
    told = world.get("repositories/jespern/django-piston/refs")
    assert [ref["name"] for ref in told["values"]] == sorted(ref.name for ref in PISTON_REFS)


NAMES = ("feature/one", "with space", 'say"hi"', "50%", "a#b?c", "ünï", "(x)&y=z;", "v1.0@x,y", "b+c")


@pytest.fixture(scope="module")
def refs(world: World) -> World:
    """Branches and tags of every odd name."""
    names = [hg_ref(kind, name, "a", heads=None) for name in NAMES for kind in ("branch", "tag")]
    world.filled.refs("mcatalbas/codeigniter", names)
    return world


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_ref_is_found_by_its_name(refs: World, kind: str, name: str) -> None:
    """Fully escaped, with plain slashes, or by the link in the answer."""
    where = f"repositories/mcatalbas/codeigniter/refs/{'branches' if kind == 'branch' else 'tags'}"
    for asked in (quote(name, safe=""), quote(name), f"{quote(name)}/"):
        told = refs.get(f"{where}/{asked}")
        assert (told["name"], told["type"]) == (name, kind)
    link = told["links"]["self"]["href"]
    assert refs.served.json(link.removeprefix("http://localhost"))["name"] == name


def test_links_lead_to_this_api_and_to_the_pages_of_the_upstream(world: World) -> None:
    """Links to the mirror work, and one leads to its own page of a repository."""
    told = world.get("repositories/jespern/django-piston")
    assert told["links"]["html"]["href"] == "https://api.example.com/jespern/django-piston"
    foreign = ("avatar", "clone", "html")
    links = {name: link["href"] for name, link in told["links"].items() if name not in foreign}
    assert links["mirror"] == "http://localhost/-/r/jespern/django-piston"
    assert all(link.startswith("http://localhost/") for link in links.values())
    for name in ("self", "branches", "tags", "forks", "watchers", "mirror"):
        assert world.served.get(links[name].removeprefix("http://localhost")).status_code == 200, name
    for by in (told["owner"], told["workspace"]):
        link = by["links"]["self"]["href"].removeprefix("http://localhost")
        assert world.served.get(link).status_code == 200, link


@pytest.mark.parametrize("prefix", PREFIXES)
def test_links_lead_to_the_address_that_was_used(world: World, prefix: str) -> None:
    """With the caller's host and prefix; headers of a proxy are not trusted."""
    headers = {
        "Host": "mirror.example:8443",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
    }
    page = world.served.json(f"{prefix}/repositories?pagelen=1", headers=headers)
    assert page["next"].startswith(f"http://mirror.example:8443{prefix}/repositories?")
    (row,) = page["values"]
    assert row["links"]["self"]["href"].startswith(f"http://mirror.example:8443{prefix}/repositories/")
    assert row["links"]["mirror"]["href"].startswith("http://mirror.example:8443/-/r/")


def test_links_lead_to_the_configured_address(world: World) -> None:
    """`public_url` with its path takes precedence over the requested host."""
    served = client_of(world.filled.store.path, public_url="https://bits.example/mirror/")
    page = served.json("/2.0/repositories?pagelen=1")
    assert page["next"].startswith("https://bits.example/mirror/2.0/repositories?")


@pytest.mark.parametrize("host", ["evil.example/x", "a b", 'x"y', "user@host", "<script>", "host:port"])
def test_an_invalid_host_header_is_refused(world: World, host: str) -> None:
    """It appears in no link."""
    answer = world.served.get("/2.0/repositories", headers={"Host": host})
    assert answer.status_code == 400
    assert "Host" in answer.json()["error"]["detail"]


def test_users_are_found_by_name_and_by_uuid(world: World) -> None:
    """In any case; with what is known of them and the status that all have."""
    told = world.get("users/JESPERN")
    assert told == world.get("users/%7Bjespern-uuid%7D") == world.get("users/%7BJESPERN-UUID%7D")
    assert (told["type"], told["username"], "account_status" in told) == ("user", "jespern", False)


def test_any_name_answers_as_a_team(world: World, mixed_db: FixtureDb) -> None:
    """A workspace in the form of a team, a person in the form of a user."""
    assert world.get("teams/jespern")["type"] == "user"
    mixed_db.repositories([repository("ateam/x", owner("ateam", kind="team", display_name="A-Team"))])
    told = World(mixed_db).get("teams/ateam")
    assert (told["type"], told["username"], told["display_name"]) == ("team", "ateam", "A-Team")
    assert told["links"]["repositories"]["href"].endswith("/2.0/repositories/ateam")


def test_a_token_acts_as_its_user(world: World) -> None:
    """`user` is 403 for a token without a user, as at Bitbucket; such a token has all workspaces."""
    assert world.get("user", **world.holding("user"))["username"] == "jespern"
    assert "user credentials" in world.refusal(403, "user", **world.holding("read"))["message"]
    for token, workspaces in (("user", {"jespern"}), ("read", {"jespern", "brodie"})):
        listed = world.get("user/workspaces?pagelen=100", **world.holding(token))["values"]
        slugs = {row["workspace"]["slug"] for row in listed}
        assert slugs == workspaces if token == "user" else workspaces <= slugs
    mine = world.get("user/workspaces?administrator=true", **world.holding("user"))["values"]
    assert [(row["workspace"]["slug"], row["administrator"]) for row in mine] == [("jespern", True)]


def test_a_repository_is_found_by_its_uuid_wherever_it_lives(world: World) -> None:
    """Under the former workspace of a transferred one, and under {}, as at Bitbucket."""
    for workspace in ("jespern", "brodie", "%7B%7D"):
        told = world.get(f"repositories/{workspace}/%7Bjespern%2Fdjango-piston%7D")
        assert told["full_name"] == "jespern/django-piston"


def test_members_are_found_one_by_one(world: World) -> None:
    """By the link in the list; a non-member is 404."""
    (row,) = world.get("workspaces/brodie/members", **world.holding("read"))["values"]
    path = row["links"]["self"]["href"].removeprefix("http://localhost/2.0/")
    assert world.get(path, **world.holding("read")) == row
    assert world.refusal(404, "workspaces/brodie/members/jespern", **world.holding("read"))


def test_tombstones_are_404(world: World) -> None:
    """Also for tokens; pages and SQL show them."""
    world.refusal(404, "repositories/brodie/buried-treasure", **world.holding("read"))


def test_a_missing_resource_is_404_in_the_apis_form(world: World) -> None:
    """Missing repositories, workspaces, refs and addresses are 404 with type and message."""
    for route in (
        "repositories/jespern/none", "repositories/jespern/a%2Fb", "repositories/nobody",
        "workspaces/nobody", "users/nobody", "teams/nobody",
        "repositories/jespern/django-piston/refs/branches/none",
        "repositories/jespern/django-piston/refs/tags/default",
    ):  # fmt: skip
        assert world.refusal(404, route)["message"]
    for route in (
        "", "nothing", "repositories//django-piston", "repositories/a%00b/c",
    ):  # fmt: skip
        error = world.refusal(404, route)
        assert error == {"message": "Resource not found", "detail": "There is no API hosted at this URL"}


def test_other_methods_are_405_with_an_allow_header(world: World) -> None:
    """405 lists the allowed methods, and so does OPTIONS."""
    for method in ("PATCH", "POST"):
        answer = world.served(method, "/2.0/workspaces")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert answer.json()["type"] == "error"
    assert world.served("OPTIONS", "/2.0/workspaces").headers["Allow"] == "GET, HEAD, OPTIONS"


def test_overlong_addresses_are_refused(world: World) -> None:
    """414 if too long, 400 if not UTF-8."""
    world.refusal(414, "repositories/" + "x" * 3000)
    world.refusal(400, "repositories/%FF")


@pytest.mark.parametrize("slug", ["tool", "Tool", "TOOL"])
def test_slugs_that_differ_by_case_only_are_both_found(public_db: FixtureDb, slug: str) -> None:
    """As they are written, in each API, on pages and by `show`; any other case finds the first."""
    public_db.repositories([repository("ann/tool"), repository("ann/Tool", uuid="{other}")])
    expected = "ann/tool" if slug == "TOOL" else f"ann/{slug}"
    served = client_of(public_db.path)
    assert served.json(f"/2.0/repositories/ann/{slug}")["full_name"] == expected
    assert served.json(f"/1.0/repositories/ann/{slug}")["name"] == expected.partition("/")[2]
    assert f"<title>{expected}" in served.get(f"/-/r/ann/{slug}").text
    details = repository_details(public_db.store.connection, OPERATOR, f"ann/{slug}")
    assert details is not None
    assert details.row.full_name == expected


def _of_two_cases(folder: Path) -> AsgiClient:
    """A workspace of Cloud, and a project of Data Center with the same name in capitals."""
    filled = FixtureDb(folder / "mirror.db")
    team = owner("tools", kind="team")
    filled.repositories([repository("tools/one", team), repository("tools/two", team)], first=True)
    filled.repositories([repository("zoe/dots", owner("zoe"))], first=True)
    filled.upstream_id = filled.store.save_upstream("dc", "datacenter", "https://dc.example/rest/api/1.0")
    capitals = owner("TOOLS", uuid="{capitals}", kind="workspace")
    filled.repositories([repository("TOOLS/one", capitals, uuid="{three}")], first=True)
    filled.repositories([repository("ZOE/dots", owner("ZOE", uuid="user:9"), uuid="{four}")], first=True)
    filled.store.close()
    return client_of(folder / "mirror.db")


def test_of_names_that_differ_by_case_the_one_written_so_is_found(tmp_path: Path) -> None:
    client = _of_two_cases(tmp_path)
    for name in ("tools", "TOOLS"):
        assert client.json(f"/2.0/workspaces/{name}")["slug"] == name
        assert client.json(f"/2.0/users/{name}")["username"] == name
        assert client.json(f"/2.0/repositories/{name}/one")["full_name"] == f"{name}/one"
        assert client.json(f"/2.0/repositories/{name}/ONE")["full_name"] == f"{name}/one"
        past = {"Accept-Datetime": "Tue, 01 Nov 2999 10:00:00 GMT"}
        assert client.json(f"/2.0/repositories/{name}/one", headers=past)["full_name"] == f"{name}/one"
        assert client.json(f"/1.0/users/{name}")["user"]["username"] == name
        assert client.json(f"/1.0/repositories/{name}/one")["owner"] == name
        assert client.json(f"/rest/api/1.0/projects/{name}")["key"] == name
        assert ("/-/r/tools/two" in client.get(f"/-/u/{name}").text) == (name == "tools")
    with Store(tmp_path / "mirror.db") as store:
        reading = bearer(tokens.create(store, "reading"))
    for name in ("zoe", "ZOE"):
        assert client.json(f"/rest/api/1.0/users/{name}", headers=reading)["name"] == name
    assert client.json("/2.0/repositories/TOOLS/two")["full_name"] == "tools/two"
    assert client.json("/2.0/repositories/%7Bcapitals%7D/one")["full_name"] == "TOOLS/one"
    assert client.get("/2.0/repositories/%7Bcapitals%7D/two").status_code == 404


def test_lists_of_an_owner_leave_out_a_namesake_in_other_case(tmp_path: Path) -> None:
    client = _of_two_cases(tmp_path)
    everything = {"TOOLS/one", "tools/one", "tools/two"}
    for name, full_names in {
        "TOOLS": {"TOOLS/one"},
        "tools": {"tools/one", "tools/two"},
        "Tools": everything,
    }.items():
        listed = client.json(f"/2.0/repositories/{name}")["values"]
        assert {row["full_name"] for row in listed} == full_names
        of_user = client.json(f"/1.0/users/{name}")["repositories"]
        for rows in (of_user, client.json(f"/1.0/repositories/{name}")):
            assert {f"{row['owner']}/{row['slug']}" for row in rows} == full_names
        for address in (f"projects/{name}/repos?", f"repos?projectkey={name}"):
            rows = client.json(f"/rest/api/1.0/{address}")["values"]
            assert {f"{row['project']['key']}/{row['slug']}" for row in rows} == full_names
