"""API 2.0 serves the object that the upstream sent, key by key, and strangers only what they may see."""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of
from examples import examples
from fixtures_db import SEEN, FixtureDb
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream_fakes import answer, faked, page, recorded

from mirror.addresses import Teller
from mirror.api2_extras import DICTIONARY, changed, difference, packed, pressed, unpacked
from mirror.model import RepositoryKey
from mirror.store import tokens
from mirror.store.refs import save_refs

RECORDED = Path(__file__).parents[2] / "shared" / "recorded" / "cloud2"
COPIED = recorded("cloud/told.json")
ALIASES = re.compile(r"^https://(?:api\.bitbucket\.org/2\.0|bitbucket\.org/!?api/2\.0)(?=/)")
HERE = "http://localhost/2.0"
SECRET = "planted-secret"


def objects(value: Any) -> Iterator[Any]:
    """Yield the repositories in anything recorded."""
    if isinstance(value, dict):
        if value.get("type") == "repository" and "scm" in value and "owner" in value:
            yield value
        for inner in value.values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


def told_there() -> list[Any]:
    """List the repositories of the recordings, if these are present."""
    found = dict[str, Any]()
    for path in sorted(RECORDED.rglob("*.json")) if RECORDED.is_dir() else ():
        text = path.read_text("utf-8", errors="replace")
        try:
            loaded = json.loads(text)
        except ValueError:
            continue
        for one in objects(loaded):
            found[json.dumps(one, sort_keys=True)] = one
    return list(found.values())


def expected(value: Any, key: str = "") -> Any:
    """Return a sent object as this mirror serves it: with its own API addresses and without logins."""
    if isinstance(value, dict):
        return {key: expected(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [expected(inner) for inner in value]
    if isinstance(value, str) and key == "href":
        return ALIASES.sub(HERE, re.sub(r"^(https?://)[^/@]*@", r"\1", value))
    return value


def sorted_links(value: Any) -> Any:
    """Sort clone addresses, whose order has no meaning, and remove the mirror's own link."""
    links = {name: link for name, link in value["links"].items() if name != "mirror"}
    if "clone" in links:
        links["clone"] = sorted(links["clone"], key=lambda link: str(link["name"]))
    return {**value, "links": links}


class ToldMirror:
    """A mirror into which a crawl of a recorded upstream was saved."""

    def __init__(self, path: Path, *, anonymous: bool) -> None:
        self.filled = FixtureDb(path)
        self.filled.store.save_upstream("cloud", "cloud", "https://api.bitbucket.org/2.0")
        self.options: dict[str, Any] = {} if anonymous else {"credential": "user:token"}

    def crawl(self, *rows: Any) -> None:
        """Save a page that the upstream answers."""
        found = faked(page(*rows), **self.options).upstream.fetch_repositories("w", "created", None)
        assert not found.bad
        self.filled.repositories(found.rows, first=True)

    def crawl_refs(self, full_name: str, *rows: Any) -> None:
        """Save all refs of a repository as the upstream answers them."""
        key = RepositoryKey(uuid="", full_name=full_name)
        found = faked(page(*rows), **self.options).upstream.fetch_refs(key, None)
        with self.filled.store.transaction() as connection:
            row_id = self.filled.id_of(full_name)
            save_refs(connection, row_id, found.rows, seen_at=SEEN)

    def served(self) -> tuple[AsgiClient, dict[str, str]]:
        """Serve it; the headers are those of a token that sees everything."""
        secret = tokens.create(self.filled.store, "reader", "read")
        self.filled.store.close()
        return client_of(self.filled.path), bearer(secret)


@pytest.mark.parametrize("rows", [COPIED, told_there()], ids=["copied", "recorded"])
def test_a_repository_is_served_key_by_key(tmp_path: Path, rows: list[Any]) -> None:
    """Keys, nulls, absences and links; each in its own file, because some were recorded in several years."""
    if not rows:
        pytest.skip("the recordings are not here")
    sizes = list[int]()
    for number, row in enumerate(rows):
        mirror = ToldMirror(tmp_path / f"{number}.db", anonymous=bool(number % 2))
        mirror.crawl(row)
        sizes += [len(value) for (value,) in mirror.filled.store.rows("SELECT value FROM extras")]
        client, token = mirror.served()
        found = client.json(f"/2.0/repositories/{row['full_name']}", headers=token)
        assert sorted_links(found) == sorted_links(expected(row))
        assert found["links"]["mirror"]["href"].endswith(f"/-/r/{row['full_name']}")
        if not row["is_private"]:
            stranger = client.json(f"/2.0/repositories/{row['full_name']}")
            told = {**expected(row), "parent": stranger.get("parent")} if not number % 2 else expected(row)
            assert sorted_links({"parent": None, **stranger}) == sorted_links({"parent": None, **told})
        listed = client.json(f"/2.0/repositories/{row['full_name'].partition('/')[0]}", headers=token)
        assert listed["values"] == [found]
    assert sum(sizes) / len(rows) <= 300  # of a repository with its owner


def whole() -> Any:
    """A repository with everything that Bitbucket sends today, and with keys that it does not send yet."""
    row = json.loads(json.dumps(COPIED[0]))
    row |= {"future": {"note": SECRET}, "is_private": False, "mainbranch": {"name": "m", "type": "branch"}}
    row["mainbranch"]["note"] = row["owner"]["note"] = row["links"]["note"] = SECRET
    row["owner"]["links"]["note"] = {"href": SECRET}
    row["has_wiki"] = row["has_issues"] = True
    row["override_settings"] = {"default_merge_strategy": True, "note": SECRET}
    row["parent"] = {
        "type": "repository", "full_name": "hidden/parent", "name": f"Parent {SECRET}", "uuid": "{9}",
        "links": {"self": {"href": "https://api.bitbucket.org/2.0/repositories/hidden/parent"}},
    }  # fmt: skip
    return row


def a_ref(kind: str, name: str) -> Any:
    """A branch or a tag with unknown keys."""
    user = {
        "type": "app_user",
        "uuid": "{a1}",
        "display_name": "App",
        "account_id": "557058:a",
        "note": SECRET,
    }
    author = {"type": "author", "raw": "A <a@example.com>", "user": user, "note": SECRET}
    row = {
        "name": name, "type": kind, "note": SECRET, "merge_strategies": ["squash"],
        "target": {"type": "commit", "hash": "a" * 40, "date": "2026-11-01T10:00:00+00:00", "message": "m",
                   "author": author, "parents": [{"hash": "b" * 40, "note": SECRET}], "note": SECRET},
        "links": {"self": {"href": "https://api.bitbucket.org/2.0/x"}, "note": {"href": SECRET}},
    }  # fmt: skip
    return row | ({"tagger": author, "message": "t", "date": None} if kind == "tag" else {})


ADDRESSES = (
    "repositories/{}", "repositories/{}/refs", "repositories/{}/refs/branches",
    "repositories/{}/refs/tags/v1",
    "repositories/{}/commit/aaaa", "repositories/{}/forks", "repositories", "users/{owner}", "teams/{owner}",
    "workspaces/{owner}", "workspaces", "repositories?fields=*,values.*", "repositories/{owner}",
)  # fmt: skip


@pytest.mark.parametrize("anonymous", [True, False], ids=["anonymous", "authenticated"])
def test_strangers_see_only_keys_of_an_anonymous_crawl(tmp_path: Path, *, anonymous: bool) -> None:
    """An unknown key is served in API 2.0, not in SQL, only to callers who may see all of it."""
    mirror = ToldMirror(tmp_path / "mirror.db", anonymous=anonymous)
    row = whole()
    mirror.crawl(row)
    mirror.crawl_refs(row["full_name"], a_ref("branch", "main"), a_ref("tag", "v1"))
    client, token = mirror.served()
    name, owner = row["full_name"], row["full_name"].partition("/")[0]
    for address in ADDRESSES:
        path = "/2.0/" + address.format(name, owner=owner)
        assert (SECRET in client.get(path).text) <= anonymous, path
        if "{}" in address and not address.endswith(("forks", "teams")):
            assert SECRET in client.get(path, headers=token).text, path
    told = client.json(f"/2.0/repositories/{name}")
    assert told["override_settings"]["default_merge_strategy"] is True
    assert (told["parent"] or {}).get("name") == (f"Parent {SECRET}" if anonymous else None)
    assert client.json(f"/2.0/repositories/{name}", headers=token)["parent"]["name"] == f"Parent {SECRET}"
    branch = client.json(f"/2.0/repositories/{name}/refs/branches/main")
    assert branch["merge_strategies"] == ["squash"]
    author = branch["target"]["author"]["user"]
    assert (author["type"], author["account_id"]) == ("app_user", "557058:a")
    assert client.json(f"/2.0/repositories/{name}/refs/tags/v1")["tagger"]["user"]["display_name"] == "App"
    for path in (
        f"/1.0/repositories/{name}",
        f"/1.0/repositories/{name}/tags",
        "/mirror.json",
        "/mirror/users.json",
    ):
        assert SECRET not in client.get(path, headers=token).text
    for statement in ("SELECT hex(value), anonymous FROM extras", "SELECT count(value) FROM extras"):
        for headers in ({}, token):
            found = client.get("/mirror.json", params={"sql": statement, "_shape": "arrays"}, headers=headers)
            assert found.status_code != 200 or not any(any(one) for one in found.json()["rows"])


def test_a_workspace_has_its_own_name_and_picture(tmp_path: Path) -> None:
    """Not those of the account with the same identity."""
    mirror = ToldMirror(tmp_path / "mirror.db", anonymous=True)
    row = json.loads(json.dumps(COPIED[0]))
    slug = row["full_name"].partition("/")[0]
    there = {
        "type": "workspace", "uuid": row["owner"]["uuid"], "name": "Equipment Inc", "slug": slug,
        "is_private": False,
        "created_on": "2020-01-01T00:00:00+00:00",
        "links": {"avatar": {"href": "https://bitbucket.org/workspaces/x/avatar/?ts=9"}},
    }  # fmt: skip
    row["owner"]["display_name"] = "Equipment Webmaster"
    row["workspace"] = {key: there[key] for key in ("type", "uuid", "name", "slug", "links")}
    found = faked(answer(there)).upstream.fetch_workspace(slug)
    filled = mirror.filled
    filled.store.save_owner(filled.upstream_id, found, run_id=None, seen_at=SEEN)
    mirror.crawl(row)
    client, _ = mirror.served()
    shown = client.json(f"/2.0/workspaces/{slug}")
    assert (shown["name"], shown["is_private"]) == ("Equipment Inc", False)
    assert shown["links"]["avatar"] == there["links"]["avatar"]
    assert shown["links"]["projects"]["href"].endswith(f"/2.0/workspaces/{slug}/projects")
    assert client.json(f'/2.0/workspaces?q=slug="{slug}"')["values"][0]["name"] == "Equipment Inc"
    assert (
        client.json(f"/2.0/repositories/{row['full_name']}")["owner"]["display_name"] == "Equipment Webmaster"
    )
    for listing, field in (("workspaces", "name"), ("repositories", "workspace.name")):
        asked = f"/2.0/{listing}?sort={field}&q={field}"
        assert client.json(f'{asked}="Equipment Inc"')["size"] == 1
        assert client.json(f'{asked} ~ "webmaster"')["size"] == 0


def test_only_the_own_account_has_a_username(tmp_path: Path) -> None:
    """Clients read their name of `user`, as Bitbucket sends it there; it hides the names of all others."""
    mirror = ToldMirror(tmp_path / "mirror.db", anonymous=True)
    row = json.loads(json.dumps(COPIED[0]))
    slug = row["full_name"].partition("/")[0]
    row["owner"] |= {"type": "user", "nickname": "Somebody", "account_id": "557058:a"}
    row["owner"].pop("username", None)
    mirror.crawl(row)
    own = bearer(tokens.create(mirror.filled.store, "own", user=slug))
    client, _ = mirror.served()
    told = client.json("/2.0/user", headers=own)
    assert told.pop("username") == slug
    assert told == client.json("/2.0/users/557058:a", headers=own)


def test_a_workspace_without_links_keeps_its_name(tmp_path: Path) -> None:
    """Its links are made then."""
    mirror = ToldMirror(tmp_path / "mirror.db", anonymous=True)
    row = json.loads(json.dumps(COPIED[0]))
    slug = row["full_name"].partition("/")[0]
    there = {"type": "workspace", "uuid": row["owner"]["uuid"], "name": "Equipment Inc", "slug": slug}
    filled = mirror.filled
    found = faked(answer(there)).upstream.fetch_workspace(slug)
    filled.store.save_owner(filled.upstream_id, found, run_id=None, seen_at=SEEN)
    mirror.crawl(row)
    client, _ = mirror.served()
    shown = client.json(f"/2.0/workspaces/{slug}")
    assert shown["name"] == "Equipment Inc"
    assert shown["links"]["self"]["href"].endswith(f"/2.0/workspaces/{slug}")


def test_a_changed_object_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """A ref that is read by git keeps nothing that the API sent before."""
    mirror = ToldMirror(tmp_path / "mirror.db", anonymous=True)
    row = whole()
    mirror.crawl(row)
    del row["future"]
    row["mainbranch"] = None
    mirror.crawl(row)
    mirror.crawl_refs(row["full_name"], a_ref("branch", "main"), a_ref("branch", "old"))
    mirror.crawl_refs(row["full_name"], a_ref("branch", "main"))
    names = mirror.filled.store.rows("SELECT kind, name FROM extras ORDER BY kind, name")
    assert names == [("account", ""), ("branch", "main"), ("repository", "")]
    client, _ = mirror.served()
    shown = client.json(f"/2.0/repositories/{row['full_name']}")
    assert "future" not in shown
    assert shown["mainbranch"] is None


@pytest.mark.parametrize("told", [{}, {"a": 1}, {"a": {"b": None}}, {"a": {"b": [1, {"c": 2}]}, "x": True}])
@pytest.mark.parametrize("ours", [{}, {"a": 2}, {"a": {"b": 1, "d": 3}, "y": None}])
def test_every_unknown_key_is_kept(told: Any, ours: Any) -> None:
    """Packing and unpacking give the same."""
    extra = difference(told, ours)
    assert unpacked(packed(extra)) == extra
    assert changed(ours, extra, "", "") == told
    with pytest.raises(ValueError, match="cannot be read"):
        unpacked(b"\xff\xfe")


@given(st.integers(0, 1200), st.sampled_from((0, 0.1, 0.9)), st.integers(0))
@settings(max_examples=examples(200))
def test_packed_bytes_do_not_depend_on_the_compressor(size: int, share: float, seed: int) -> None:
    """A short text is compressed as all others are: the same object has the same bytes in every mirror."""
    random = Random(seed)  # hypothesis would record each of a thousand choices
    words = [DICTIONARY[place : place + 30] for place in range(0, len(DICTIONARY), 30)]
    pieces = [
        random.choice(words) if random.random() < share else random.randbytes(1).hex().encode()
        for _ in range(size)
    ]
    text = b"".join(pieces)[:size]
    press = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=DICTIONARY)
    assert pressed(text) == press.compress(text) + press.flush()


PARTS = (
    "https://api.bitbucket.org", "https://bitbucket.org", "https://me:x@", "HTTPS://me@", "/2.0", "/!api/2.0",
    "/", "/a", "bitbucket.org", '"', '"href":"', "\\", "é", "@", "\u2028", "://", "\n",
)  # fmt: skip
HREFS = st.lists(st.sampled_from(PARTS), max_size=4).map("".join)
OBJECTS = st.recursive(
    HREFS | st.none() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["href", "name", 'x"href', "links"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=examples(200))
@given(
    value=st.dictionaries(st.sampled_from(["links", "href"]), OBJECTS),
    spaces=st.booleans(),
    escapes=st.booleans(),
)
def test_addresses_are_taken_out_however_they_are_written(value: Any, spaces: bool, escapes: bool) -> None:
    """In the text or, if it has escaped slashes, in the decoded object."""
    text = json.dumps(value, ensure_ascii=escapes, separators=None if spaces else (",", ":"))
    tell = Teller("https://api.bitbucket.org/2.0")
    assert tell(text.encode()).value == tell(text.replace("/", "\\/").encode()).value
    assert tell(b'{"href":"https://me@bitbucket.org/a"}').value == {"href": "~web/a"}


@pytest.mark.parametrize(
    "begin", ["https://me@", "http://a:b@", "HTTPS://me@", "ssh://hg@", "Ssh://a@", "x://a@"]
)
def test_logins_are_taken_out_however_they_are_written(begin: str) -> None:
    """In the text as in the decoded object; those of ssh are the service's own, and stay."""
    tell = Teller("https://api.bitbucket.org/2.0")
    for text in (f'{{"href": "{begin}bitbucket.org/o/r", "raw": "Ada <ada@example.com>"}}', f'["{begin}b/"]'):
        escaped = text.replace("/", "\\/").replace("@b", "\\u0040b")
        assert tell(text.encode()).value == tell(escaped.encode()).value
