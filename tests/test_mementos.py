"""`Accept-Datetime` in the three APIs, and the past in SQL."""

import json
import re

import httpx
import pytest
from asgi_client import AsgiClient, bearer, client_of
from lives import live, moment

from mirror.store import tokens

CALLER = dict[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsgiClient, CALLER]:
    """The mirror of `lives.py`, and the header of a token that sees everything."""
    filled = live(tmp_path_factory.mktemp("served") / "mirror.db")
    token = tokens.create(filled.store, "of all", "read")
    filled.store.close()
    return client_of(filled.path), bearer(token)


def get(
    served: tuple[AsgiClient, CALLER], path: str, at: str = "", *, stranger: bool = False
) -> httpx.Response:
    """Request an address as of a time on the first of November."""
    client, token = served
    headers = {} if stranger else dict(token)
    if at:
        headers["Accept-Datetime"] = f"Sun, 01 Nov 2026 {at} GMT"
    return client("GET", path, headers=headers)


@pytest.mark.parametrize(
    ("path", "keys", "value"),
    [
        ("/1.0/repositories/bob/new", ("slug",), "old"),
        ("/1.0/repositories/ann/old/branches", ("master", "raw_node"), "1" * 40),
        ("/1.0/repositories/ann/old/main-branch", ("name",), "master"),
        ("/1.0/repositories/ann/old/branches-tags", ("branches", 0, "changeset"), "1" * 40),
        ("/2.0/repositories/ann/old", ("description",), "first"),
        ("/2.0/repositories/bob/{it}", ("full_name",), "ann/old"),
        ("/2.0/repositories/bob/new/refs/branches/master", ("target", "hash"), "1" * 40),
        ("/2.0/repositories/ann/old/refs", ("values", 0, "target", "hash"), "1" * 40),
        ("/2.0/repositories/ann/old/refs/tags", ("size",), 0),
        ('/2.0/repositories/ann/old/refs/branches?q=name~"AST"', ("values", 0, "target", "hash"), "1" * 40),
        ("/2.0/repositories/ann/old/refs?sort=name", ("values", 0, "target", "hash"), "1" * 40),
        ("/rest/api/1.0/projects/~ann/repos/old", ("description",), "first"),
        ("/rest/api/1.0/projects/bob/repos/new/branches", ("values", 0, "latestCommit"), "1" * 40),
        (
            "/rest/api/1.0/projects/bob/repos/new/branches?filterText=AST&boostMatches=true",
            ("values", 0, "latestCommit"),
            "1" * 40,
        ),
    ],
)
def test_a_single_read_answers_of_the_moment(
    served: tuple[AsgiClient, CALLER], path: str, keys: tuple[object, ...], value: object
) -> None:
    """With the time of its look, and the requested address as its own TimeGate."""
    answer = get(served, path, "00:25:00")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    for key in keys:
        found = found[key]
    assert found == value
    seen = "00:00:00" if path.endswith(("/main-branch", "/old", "/new", "}")) else "00:20:00"
    assert answer.headers["Memento-Datetime"] == f"Sun, 01 Nov 2026 {seen} GMT"
    assert "Accept-Datetime" in answer.headers["Vary"]
    assert answer.headers["Link"].endswith('>; rel="original timegate"')
    assert answer.headers["X-Mirror-Next-Look"] > moment(25)
    assert "Age" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/2.0/repositories/bob/%7Bit%7D?fields=%2Bvalues.*",
        "/2.0/repositories/ann/old/refs/branches/feature%2Fa%20b",
        "/2.0/repositories/ann/old/refs/branches/%C3%BC%25",
        "/2.0/repositories/ann/old/refs?q=(name=%22a%22)&access=a+b~!",
    ],
)
def test_the_timegate_is_the_address_that_was_sent(served: tuple[AsgiClient, CALLER], path: str) -> None:
    """Escapes are not escaped again; signs that would end the link are."""
    link = get(served, path).headers["Link"]
    assert link.partition(">")[0].removeprefix("<").endswith(path)
    raw = get(served, "/2.0/repositories/bob/new?q=a>b").headers["Link"]
    assert raw.endswith('/2.0/repositories/bob/new?q=a%3Eb>; rel="original timegate"')


@pytest.mark.parametrize("name", ["access_token", "ACCESS%5ftoken"])
def test_the_timegate_repeats_no_credential(served: tuple[AsgiClient, CALLER], name: str) -> None:
    """Proxies log headers of answers, and clients store them."""
    client, token = served
    secret = token["Authorization"].partition(" ")[2]
    path = f"/2.0/repositories/bob/new?{name}={secret}&fields=%2Bname"
    link = client("GET", path).headers["Link"]
    assert link.endswith('/2.0/repositories/bob/new?fields=%2Bname>; rel="original timegate"')


def test_without_a_moment_it_is_as_ever(served: tuple[AsgiClient, CALLER]) -> None:
    """Except for the headers that offer the past; lists have none."""
    answer = get(served, "/2.0/repositories/bob/new")
    assert answer.json()["description"] == "last"
    assert "Memento-Datetime" not in answer.headers
    assert "Accept-Datetime" in answer.headers["Vary"]
    assert "Accept-Datetime" not in get(served, "/2.0/repositories/bob", "00:25:00").headers["Vary"]


@pytest.mark.parametrize(
    ("path", "first", "last"),
    [
        ("/1.0/repositories/bob/new", "00:00:00", "01:10:00"),
        ("/2.0/repositories/bob/{it}/refs", "00:01:00", "01:30:00"),
        ("/rest/api/1.0/projects/bob/repos/new/branches", "00:01:00", "01:30:00"),
    ],
)
def test_outside_of_what_is_known_the_nearest_look_is_told(
    served: tuple[AsgiClient, CALLER], path: str, first: str, last: str
) -> None:
    """The first one before it, the last one for the future (RFC 7089, 4.5.3); an invalid date is 400."""
    client, token = served
    for given, look in (("Sat, 31 Oct 2026 10:00:00", first), ("Tue, 01 Nov 2999 10:00:00", last)):
        answer = client("GET", path, headers={**token, "Accept-Datetime": f"{given} GMT"})
        assert answer.headers["Memento-Datetime"] == f"Sun, 01 Nov 2026 {look} GMT"
        again = get(served, path, look)
        assert (again.headers["Memento-Datetime"], again.content) == (
            answer.headers["Memento-Datetime"],
            answer.content,
        )
    for wrong in ("yesterday", "", "Tue, 31 Feb 2026 10:00:00 GMT", "2026-11-01T00:25:00Z", "0"):
        answer = client("GET", path, headers={**token, "Accept-Datetime": wrong})
        assert (answer.status_code, "Memento-Datetime" in answer.headers) == (400, False), wrong
        assert "Accept-Datetime" in answer.headers["Vary"]


@pytest.mark.parametrize("path", ["/1.0/repositories/bob/new", "/2.0/repositories/ann/mid/refs/branches"])
def test_a_stranger_sees_no_private_time(served: tuple[AsgiClient, CALLER], path: str) -> None:
    """Nor anything from before it."""
    public = get(served, path, "01:05:00", stranger=True)
    for at in ("00:25:00", "00:45:00"):
        shown = get(served, path, at, stranger=True)
        assert (shown.status_code, shown.content) == (200, public.content)
        assert shown.headers["Memento-Datetime"] >= "Sun, 01 Nov 2026 00:50:00 GMT"


def test_the_past_in_sql(served: tuple[AsgiClient, CALLER]) -> None:
    """Refs as a table by json_each, a repository as an object; NULL if nothing is known."""
    sql = """select j.value ->> 'target_hash' as target,
        mirror_repository_at('bob/new', '2026-11-01T00:25') as r,
        mirror_refs_at('bob/new', '2026-10-01') as early, mirror_refs_at(1, '2999-01-01') as later
        from json_each(mirror_refs_at('ann/old', '2026-11-01T00:25Z', 'master')) as j"""
    client, token = served
    answer = client("GET", "/mirror.json", params={"sql": sql, "_shape": "array"}, headers=token)
    (row,) = answer.json()
    assert (row["target"], row["early"], row["later"]) == ("1" * 40, None, None)
    told = json.loads(row["r"])
    assert (told["full_name"], told["size"], told["exact_to"]) == ("ann/old", 5, "look")


@pytest.mark.parametrize(
    ("path", "at", "shown", "hidden"),
    [
        (
            "/-/r/bob/new",
            "2026-11-01T00:25",
            ("ann/old", "As the mirror knew it", "Not recorded: forks count, ", "1" * 12, "Next change"),
            "2" * 12,
        ),
        ("/-/r?id=1", "2026-11-01T00:35", ("old", "2" * 8, "as of then"), "1" * 13),
        ("/-/r/ann/old", "2026-11-01T01:25", ("another",), "first"),
        ("/-/u/ann", "2026-11-01T00:25", ("ann/old", "first"), "another"),
        ("/-/u/ann", "2026-11-01T00:55", ("ann/mid",), "ann/old<"),
        ("/-/u/bob", "2026-11-01T01:15", ("bob/new", "last"), "ann/old<"),
    ],
)
def test_pages_show_the_past(
    served: tuple[AsgiClient, CALLER], path: str, at: str, shown: tuple[str, ...], hidden: str
) -> None:
    """Of a repository and of an owner, without a script."""
    page = get(served, f"{path}{'&' if '?' in path else '?'}at={at}")
    assert page.status_code == 200, page.text
    assert all(word in page.text for word in shown)
    assert hidden not in page.text.partition("History until then")[0].partition("Latest changes")[0]
    assert f'value="{at}"' in page.text


@pytest.mark.parametrize(
    ("path", "token", "moments"),
    [
        ("/-/r/bob/new", True, (0, 30, 40, 50, 70, 90)),
        ("/-/r/bob/new", False, (50, 70, 90)),
        ("/-/u/bob", True, (30, 40, 50, 70, 90)),
    ],
)
def test_steps_lead_through_every_state(
    served: tuple[AsgiClient, CALLER], path: str, token: bool, moments: tuple[int, ...]
) -> None:
    """Links lead from today to the first state and back; strangers see no private one."""
    client, headers = served

    def walk(address: str, way: str) -> list[str]:
        seen = list[str]()
        while True:
            page = client("GET", address, headers=headers if token else {})
            assert page.status_code == 200, address
            found = re.search(rf'rel="{way}" href="([^"]*at=([^"]*))"', page.text)
            if found is None:
                return seen
            address = found[1].replace("&amp;", "&")
            seen.append(found[2])

    known = [moment(minute) for minute in moments]
    assert walk(path, "prev") == known[-2::-1]
    assert walk(f"{path}?at={known[0]}", "next") == known[1:]


@pytest.mark.parametrize("path", ["/-/r/bob/new", "/-/r?id=1", "/-/u/bob", "/-/u/ann"])
def test_pages_refuse_what_is_not_known(served: tuple[AsgiClient, CALLER], path: str) -> None:
    """A future or invalid moment, and one before the first look; for strangers the private time too."""
    client, token = served
    for at, headers in (("2999-01-01", token), ("x", token), ("2026-10-01", token), ("2026-11-01T00:45", {})):
        page = client("GET", f"{path}{'&' if '?' in path else '?'}at={at}", headers=headers)
        assert page.status_code == 404
        assert "ann/old" not in page.text or headers
