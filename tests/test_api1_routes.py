"""API 1.0 over HTTP: addresses, names, formats, errors, search, events; as clients were seen to use it."""

import asyncio
import json
import re
import sqlite3
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
import yaml
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from examples import examples
from fixtures_db import (
    JESPERN,
    LATER,
    PISTON,
    PISTON_REFS,
    SEEN,
    FixtureDb,
    fill_mixed,
    fill_public,
    hg_ref,
    owner,
    repository,
)
from hypothesis import given
from hypothesis import strategies as st
from random_json import random_json

from mirror.serve.api1 import edge
from mirror.serve.api1.routes import READERS
from mirror.serve.exchange import JSON_TYPE
from mirror.times import from_text, utc_now

PREFIXES = ("/1.0", "/api/1.0", "/!api/1.0", "/%21api/1.0")


class World:
    """A served mirror, the store behind it, and tokens."""

    def __init__(self, filled: FixtureDb) -> None:
        self.filled = filled
        self.tokens = make_tokens(filled.store)
        self.served = client_of(filled.store.path)

    def get(self, what: str, **options: Any) -> Any:
        """Ask for JSON that must be there."""
        return self.served.json(f"/1.0/{what}", **options)

    def status(self, what: str, **options: Any) -> int:
        """Ask and return the status."""
        return self.served.get(f"/1.0/{what}", **options).status_code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once; tests that write make their own."""
    return World(fill_mixed(tmp_path_factory.mktemp("world") / "mirror.db"))


@pytest.fixture(scope="module")
def open_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which nothing is private; made once, for a test that asks it many things."""
    return World(fill_public(tmp_path_factory.mktemp("open") / "mirror.db"))


@pytest.fixture
def own(tmp_path: Path) -> World:
    """A world to write into."""
    return World(fill_public(tmp_path / "mirror.db"))


def _paths() -> list[str]:
    names = {"<owner>": "jespern", "<slug>": "django-piston"}
    return ["/".join(names.get(part, part) for part in pattern) for pattern in READERS]


def _status_of(path: str) -> int:
    """No upstream lists the followers of a user."""
    return 501 if path == "users/jespern/followers" else 200


@pytest.mark.parametrize("path", _paths())
def test_a_trailing_slash_changes_no_answer(world: World, path: str) -> None:
    """Four prefixes, two endings, one answer, no redirect."""
    asked = {"params": {"name": "piston", "format": "json", "fields": "ignored"}}
    headers = bearer(world.tokens["user"])
    answers = [
        world.served.get(f"{prefix}/{path}{slash}", headers=headers, **asked)
        for prefix in PREFIXES
        for slash in ("", "/")
    ]
    assert {answer.status_code for answer in answers} == {_status_of(path)}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("path", _paths())
def test_every_method_is_answered_without_a_redirect(world: World, path: str) -> None:
    """HEAD is GET without a body, OPTIONS lists methods, others are refused in the API's format."""
    headers = bearer(world.tokens["user"])
    got = world.served.get(f"/1.0/{path}?name=x", headers=headers)
    head = world.served("HEAD", f"/1.0/{path}?name=x", headers=headers)
    assert (head.status_code, head.content) == (_status_of(path), b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert world.served("OPTIONS", f"/1.0/{path}/").headers["allow"].startswith("GET, HEAD")
    for method in ("POST", "PUT", "DELETE", "PATCH", "PROPFIND"):
        answer = world.served(method, f"/1.0/{path}/", headers=headers)
        assert answer.status_code == 405, method
        assert "GET" in answer.headers["allow"]
        assert answer.json()["error"]["message"] == "Method Not Allowed"


@pytest.mark.parametrize(
    "path",
    ["users//", "users/", "users", "", "/", "nothing", "repositories/a/b/c", "repositories//x", "users/a/b",
     "repositories/jespern/%2e%2e%2fx"],
)  # fmt: skip
def test_an_unknown_address_is_404_in_json(world: World, path: str) -> None:
    """Never one of Datasette's pages, never a redirect."""
    answer = world.served.get(f"/1.0/{path}")
    assert answer.status_code == 404
    assert "message" in answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("JESPERN/Django-Piston", "django-piston"),
        ("mimika_oh/web.site", "web.site"),
        ("Mimika_Oh/Web%2Esite", "web.site"),
    ],
)
def test_names_are_found_in_any_case_and_with_dots(world: World, asked: str, found: str) -> None:
    """Clients write slugs in lower case; real slugs keep their dots."""
    assert world.get(f"repositories/{asked}")["slug"] == found
    assert world.get(f"repositories/{asked}/branches-tags/")["branches"] is not None


def test_a_living_repository_wins_over_a_tombstone_of_its_name(own: World) -> None:
    """A deleted one is 404; when the name is used again, the new repository answers."""
    own.filled.repositories([repository("a/b", description="the first")])
    own.filled.gone("a/b")
    refused = own.served.get("/1.0/repositories/a/b")
    assert (refused.status_code, refused.json()["error"]["message"]) == (404, "Repository a/b not found")
    assert own.get("repositories/a") == []
    own.filled.repositories([repository("a/b", uuid="{second}", description="the second")])
    assert own.get("repositories/a/b")["description"] == "the second"
    assert [one["description"] for one in own.get("repositories/a")] == ["the second"]


def test_a_former_name_is_404(own: World) -> None:
    """Bitbucket does not redirect old slugs; the new name works at once."""
    own.filled.repositories([repository("jespern/renamed", JESPERN, uuid=PISTON.uuid)], at=LATER)
    assert own.status("repositories/jespern/django-piston") == 404
    assert own.get("repositories/jespern/renamed")["slug"] == "renamed"
    assert own.get("repositories/dchambers/django-piston")["fork_of"]["slug"] == "renamed"


def test_the_upstream_that_the_caller_may_see_answers(own: World) -> None:
    """Two upstreams have the name: a private one must not hide a public one."""
    own.filled.repositories([repository("a/b", is_private=True)])
    own.filled.upstream_id = own.filled.store.save_upstream("other", "cloud", "https://other.example.com")
    own.filled.repositories([repository("a/b", description="public")])
    assert own.get("repositories/a/b")["description"] == "public"


@pytest.mark.parametrize(
    ("what", "message"),
    [("users/nobody", "User nobody"), ("repositories/nobody", "User"), ("repositories/a/b", "Repository")],
)
def test_unknown_names_are_404(world: World, what: str, message: str) -> None:
    """Clients check how the message begins."""
    answer = world.served.get(f"/1.0/{what}/")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize("path", [path for path in _paths() if path.startswith("user/") or path == "user"])
def test_addresses_of_the_caller_need_credentials(world: World, path: str) -> None:
    """401 with the header that makes clients ask for a password, only at these addresses."""
    for how in ({}, {"headers": bearer(world.tokens["bad"])}, {"headers": basic("jespern", "secret")}):
        answer = world.served.get(f"/1.0/{path}/", **how)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "www-authenticate" not in world.served.get("/1.0/repositories/jespern/arriving").headers


@pytest.mark.parametrize(
    "header",
    [
        "OAuth oauth_consumer_key=x, oauth_signature=y",
        "Nonsense",
        "",
    ],
)
def test_a_signed_public_read_is_answered(world: World, header: str) -> None:
    """Old clients sign every request; anything but Basic and Bearer is ignored."""
    assert world.status("repositories/jespern/django-piston", headers={"Authorization": header}) == 200


def test_the_user_resource_names_the_caller(world: World) -> None:
    """The token's user, or the Basic user name beside a token without a user."""
    assert world.get("user", headers=bearer(world.tokens["user"]))["user"]["username"] == "jespern"
    by_name = world.get("user", headers=basic("mcatalbas", world.tokens["read"]))
    assert by_name["user"]["username"] == "mcatalbas"
    assert world.get("user", params={"access_token": world.tokens["user"]})["user"]["username"] == "jespern"
    assert world.status("user", headers=bearer(world.tokens["read"])) == 403
    assert world.status("user", headers=basic("nobody", world.tokens["read"])) == 404


def test_user_repositories_include_those_of_workspaces(world: World) -> None:
    """Also repositories of other owners: mcatalbas is a member of brodie."""
    headers = basic("mcatalbas", world.tokens["read"])
    found = world.get("user/repositories/", headers=headers)
    assert [f"{one['owner']}/{one['slug']}" for one in found] == [
        "brodie/hg-project",
        "mcatalbas/codeigniter",
        "mcatalbas/copy",
    ]
    assert world.get("user/privileges", headers=headers) == {"teams": {"brodie": "admin"}}
    overview = world.get("user/repositories/overview", headers=headers)
    assert (len(overview["updated"]), overview["viewed"]) == (3, [])
    dashboard = world.get("user/repositories/dashboard", headers=headers)
    assert [(user["username"], len(lines)) for user, lines in dashboard] == [("brodie", 1), ("mcatalbas", 2)]


def test_follows_include_own_repositories(world: World) -> None:
    """As recorded; followed private ones are listed with a token."""
    found = world.get("user/follows", headers=basic("mcatalbas", world.tokens["read"]))
    assert {one["slug"] for one in found} == {"arriving", "django-piston", "codeigniter", "copy"}


def test_search_counts_exactly_and_names_owner_and_address(world: World) -> None:
    """Every item has its owner and an address that works."""
    answer = world.get("repositories/", params={"name": "DJANGO-"})
    assert (answer["query"], answer["count"]) == ("DJANGO-", 3)
    assert answer["repositories"][0]["followers_count"] == 173
    for item in answer["repositories"]:
        assert item["resource_uri"] == f"/1.0/repositories/{item['owner']}/{item['slug']}"
        assert world.served.json(item["resource_uri"])["slug"] == item["slug"]


def test_search_pages_are_an_extension(world: World) -> None:
    """`limit` and `start` change the page, never the count; invalid values are ignored."""
    page = world.get("repositories", params={"name": "django", "limit": "1", "start": "1"})
    assert (page["count"], len(page["repositories"])) == (3, 1)
    assert len(world.get("repositories", params={"name": "django", "limit": "-1"})["repositories"]) == 3
    assert world.get("repositories?name=nothing-like-it") == {
        "query": "nothing-like-it",
        "count": 0,
        "repositories": [],
    }


def test_search_without_a_name_names_the_missing_parameter(world: World) -> None:
    """400, and the field."""
    answer = world.served.get("/1.0/repositories/")
    assert (answer.status_code, answer.json()["error"]["detail"]) == (400, "name: This field is required.")


def test_main_branch_and_forks_and_followers(world: World) -> None:
    """One branch, or 404 for an empty repository; only visible forks are counted."""
    assert world.get("repositories/jespern/django-piston/main-branch") == {"name": "default"}
    assert world.status("repositories/mimika_oh/web.site/main-branch") == 404
    forks = world.get("repositories/jespern/django-piston/forks")
    assert (forks["count"], forks["forks"][0]["owner"]) == (2, "dchambers")
    followers = world.get("repositories/jespern/django-piston/followers")
    assert (followers["count"], len(followers["followers"])) == (173, 2)
    assert world.status("repositories/ubernostrum/django-registration/followers") == 501
    assert world.status("repositories/dchambers/django-piston/followers") == 501
    assert world.status("users/jespern/followers") == 501
    assert world.status("users/nobody/followers") == 404


def test_branches_and_tags_are_objects_by_name(world: World) -> None:
    """Not paged, with short and long hashes; without refs it is an empty object."""
    branches = world.get("repositories/jespern/django-piston/branches")
    assert branches["default"]["raw_node"] == "a" * 40
    assert branches["default"]["branch"] == "default"
    assert world.get("repositories/mcatalbas/codeigniter/tags") == {}
    short = world.get("repositories/jespern/django-piston/branches-tags")
    assert short["branches"][0]["mainbranch"] is True
    assert [tag["name"] for tag in short["tags"]] == ["0.2.1", "0.2.2", "0.2.3", "tip"]


def test_odd_ref_names_survive_every_format(own: World) -> None:
    """Slashes, quotes, brackets and another script, as in real tags."""
    names = (
        'special-"$;><&#_=@!|.,/test',
        "@atlaskit/activity@1.0.3",
        "Gtk Release",
        "ünïcödé/naïve",
        "</script>",
    )
    own.filled.refs("jespern/django-piston", [hg_ref("tag", name, "7") for name in names], at=LATER)
    path = "repositories/jespern/django-piston/tags"
    assert set(own.get(path)) == set(names)
    assert set(yaml.safe_load(own.served.get(f"/1.0/{path}?format=yaml").text)) == set(names)
    root = ET.fromstring(own.served.get(f"/1.0/{path}?format=xml").content)  # noqa: S314
    assert {element.get("name") for element in root} == set(names)


def test_events_come_from_recorded_changes(own: World) -> None:
    """Newest first, paged, filtered by type; a fork is told from a creation."""
    own.filled.repositories([repository("jespern/new", JESPERN)])
    own.filled.repositories([repository("jespern/forked", JESPERN, parent_full_name="x/y")])
    moved = [hg_ref("branch", "default", "9"), *PISTON_REFS[1:]]
    own.filled.refs("jespern/django-piston", moved, at=LATER)
    own.filled.gone("jespern/new")
    answer = own.get("users/jespern/events")
    assert [one["event"] for one in answer["events"]] == ["delete", "pushed", "fork", "create"]
    assert answer["count"] == 4
    pushed = own.get("repositories/jespern/django-piston/events")["events"][0]
    assert pushed["node"] == "9" * 12
    assert pushed["created_on"] == "2026-11-02 13:00:00"
    assert pushed["utc_created_on"] == "2026-11-02 12:00:00+00:00"
    assert pushed["repository"]["slug"] == "django-piston"
    page = own.get("users/jespern/events?start=1&limit=2")
    assert (page["count"], [one["event"] for one in page["events"]]) == (4, ["pushed", "fork"])
    for kind in ("create", "fork", "pushed", "delete"):
        of_kind = own.get(f"users/jespern/events?type={kind}")
        assert (of_kind["count"], {one["event"] for one in of_kind["events"]}) == (1, {kind})
    assert own.get("users/jespern/events?type=wiki_created") == {"count": 0, "events": []}


def test_answers_tell_their_age(world: World) -> None:
    """When the row was last seen upstream, and how many seconds ago; refs have their own age."""
    answer = world.served.get("/1.0/repositories/jespern/django-piston/tags/")
    assert answer.headers["x-mirror-synced-at"] == SEEN
    told = int(answer.headers["age"])
    assert abs((utc_now() - from_text(SEEN)).total_seconds() - told) < 5
    assert "age" not in world.served.get("/1.0/repositories/mcatalbas/copy/tags").headers


def test_yaml_and_xml_say_the_same_as_json(world: World) -> None:
    """The formats that were documented."""
    path = "/1.0/repositories/jespern/django-piston"
    said = world.served.json(path)
    as_yaml = world.served.get(f"{path}?format=yaml")
    assert (as_yaml.headers["content-type"], yaml.safe_load(as_yaml.text)) == (
        "application/yaml; charset=utf-8",
        said,
    )
    as_xml = world.served.get(f"{path}?format=xml")
    root = ET.fromstring(as_xml.content)  # noqa: S314
    assert as_xml.headers["content-type"] == "application/xml; charset=utf-8"
    assert (root.tag, root.findtext("description"), root.findtext("size")) == (
        "response",
        said["description"],
        str(said["size"]),
    )
    assert {element.tag for element in root} == set(said)
    assert world.served.json(f"{path}?format=unheard-of") == said


def test_jsonp_is_a_script_that_calls_a_plain_name(world: World) -> None:
    """Browsers do not sniff its type; anything but a name is refused."""
    path = "/1.0/repositories/jespern/django-piston/main-branch"
    answer = world.served.get(f"{path}?callback=jQuery.cb_1")
    assert answer.text == '/**/jQuery.cb_1({"name": "default"});'
    assert answer.headers["content-type"] == "application/javascript; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("alert(1)", "a;b", "a b", "", "1a", "a" * 101, "<script>", "ä"):
        refused = world.served.get(path, params={"callback": name})
        assert (refused.status_code, refused.headers["content-type"]) == (400, JSON_TYPE), name
        assert "<script>" not in refused.text


def test_jsonp_does_not_borrow_a_browsers_password(world: World) -> None:
    """A page of another site may include it as a script: cached logins are ignored then."""
    token = world.tokens["user"]
    path = "/1.0/repositories/jespern/arriving?callback=f"
    login = world.served("POST", "/-/mirror-login", data={"token": token})
    cookies = {"ds_actor": login.cookies["ds_actor"].strip('"')}
    assert world.served.get(path, headers=basic("jespern", token)).status_code == 404
    assert world.served.get(path, cookies=cookies).status_code == 404
    assert world.served.get(path, headers=bearer(token)).status_code == 200
    assert world.served.get(f"{path}&access_token={token}").status_code == 200


def test_a_login_may_read_the_api(world: World) -> None:
    """A logged-in browser can open the JSON of a private repository."""
    login = world.served("POST", "/-/mirror-login", data={"token": world.tokens["read"]})
    cookies = {"ds_actor": login.cookies["ds_actor"].strip('"')}
    assert world.status("repositories/jespern/arriving", cookies=cookies) == 200


HOSTILE = "<script>alert(1)</script>\u2028\x00\x1b]]>&\r\n\ud7ff\U0001f600"


def test_every_answer_is_data_not_html(own: World) -> None:
    """A hostile description is complete, in types that browsers neither render nor sniff."""
    own.filled.repositories([repository("a/b", description=HOSTILE, website="javascript:alert(1)")])
    for form in ("json", "yaml", "xml"):
        answer = own.served.get(f"/1.0/repositories/a/b?format={form}")
        assert answer.headers["content-type"].startswith("application/")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert own.get("repositories/a/b")["description"] == HOSTILE
    as_yaml = yaml.safe_load(own.served.get("/1.0/repositories/a/b?format=yaml").text)
    assert as_yaml["description"] == HOSTILE
    script = own.served.get("/1.0/repositories/a/b?callback=f").text
    assert "\u2028" not in script
    assert json.loads(script[len("/**/f(") : -2])["description"] == HOSTILE


def test_every_value_makes_well_formed_xml() -> None:
    """Also control characters, and keys that are not element names."""
    choose = Random(1)
    for _ in range(examples(300)):
        value = random_json(choose)
        body, _ = edge.formatted(value, "xml", None)
        assert ET.fromstring(body).tag == "response", value  # noqa: S314


@given(text=st.text(max_size=60))
def test_random_paths_never_fail(text: str, open_world: World) -> None:
    """Any address gets an answer of the API."""
    for path in (f"users/{quote(text)}", f"repositories/{quote(text)}/{quote(text)}/tags", quote(text)):
        answer = open_world.served.get(f"/1.0/{path}")
        assert answer.status_code in (200, 400, 401, 404, 414)  # `user` asks who it is
        assert answer.headers["content-type"] == JSON_TYPE


def test_every_query_uses_an_index(mixed_db: FixtureDb) -> None:
    """No statement reads every repository, branch, tag or change."""
    served = client_of(mixed_db.path)
    token = make_tokens(mixed_db.store)["user"]
    said = list[str]()

    def note(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(said.append)

    async def ask() -> None:
        await served.datasette.invoke_startup()
        for _ in range(8):
            await served.datasette.databases["mirror"].read(note)
        served.datasette.databases["mirror"].read_at_once(note)
        for path in _paths():
            if path != "repositories":
                for headers in ({}, bearer(token)):
                    await served.datasette.client.get(f"/1.0/{path}", headers=headers)

    asyncio.run(ask())
    selects = {sql for sql in said if sql.lstrip().upper().startswith("SELECT")}
    assert len(selects) > 20
    for sql in selects:
        plan = " / ".join(row[3] for row in mixed_db.store.rows(f"EXPLAIN QUERY PLAN {sql}"))
        assert not re.search(r"SCAN (r|p|f|c|u|t|m|repositories|branches|tags|changes|users)\b", plan), (
            sql,
            plan,
        )
    mixed_db.store.close()


def test_a_server_without_a_mirror_says_so(tmp_path: Path) -> None:
    """The plugin is installed, but no attached database is a mirror."""
    from datasette.app import Datasette

    sqlite3.connect(tmp_path / "other.db").close()
    (tmp_path / "other.db").touch()
    answer = AsgiClient(Datasette([str(tmp_path / "other.db")])).get("/1.0/users/jespern")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "No mirror is attached")


def test_owner_names_in_addresses_are_quoted(own: World) -> None:
    """A user name with a space still gives a working address."""
    own.filled.repositories([repository("Some One/x", owner("Some One"))])
    uri = own.get("users/some%20one")["user"]["resource_uri"]
    assert uri == "/1.0/users/Some%20One"
    assert own.served.json(uri)["repositories"][0]["owner"] == "Some One"
