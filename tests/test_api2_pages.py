"""Pages of API 2.0: lengths, opaque places, orders with nulls and ties, `after`, `fields`, their links."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import FixtureDb, fill_public, hg_ref, owner, repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.queries.visibility import ANONYMOUS, Caller
from mirror.serve.api2 import listings
from mirror.serve.api2.edge import selection
from mirror.serve.api2.paging import PageWindow, opaque, segments

TIES = ("2012-01-01T00:00:00.000000Z", "2013-01-01T00:00:00.000000Z", None)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> FixtureDb:
    """Sixty repositories, a third private, with many equal or unknown dates."""
    made = fill_public(tmp_path_factory.mktemp("pages") / "mirror.db")
    rng = random.Random(5)
    rows = [
        repository(
            f"tied/r{number}", owner("tied"), is_private=number % 3 == 0,
            created_at=rng.choice(TIES), updated_at=rng.choice(TIES),
            size=rng.choice((None, 0, 1, 2**33)), language=rng.choice(("go", "", "ü")),
        )
        for number in range(60)
    ]  # fmt: skip
    made.repositories(rows)
    made.refs("tied/r1", [hg_ref("branch", f"b{n}", "a") for n in range(12)] + [hg_ref("tag", "b3", "b")])
    return made


class World:
    """The file served, and a token."""

    def __init__(self, filled: FixtureDb) -> None:
        self.filled = filled
        self.holder = bearer(make_tokens(filled.store)["read"])
        self.served: AsgiClient = client_of(filled.store.path)

    def get(self, what: str, **headers: str) -> Any:
        """Ask for JSON that must be there, by path or by a whole address on this server."""
        what = what.removeprefix("http://localhost/2.0/")
        return self.served.json(f"/2.0/{what}", headers=headers)

    def walked(self, what: str, **headers: str) -> Iterator[Any]:
        """Follow every `next`."""
        page = self.get(what, **headers)
        yield page
        while "next" in page:
            page = self.get(page["next"], **headers)
            yield page


@pytest.fixture(scope="module")
def world(filled: FixtureDb) -> World:
    """Made once: tests that write make their own."""
    return World(filled)


def _names(pages: Any) -> list[str]:
    return [row.get("full_name") or row["name"] for page in pages for row in page["values"]]


@pytest.mark.parametrize(
    ("asked", "length"),
    [
        ("", 10),
        ("pagelen=1", 1),
        ("pagelen=100", 100),
        ("pagelen=101", 100),
        ("pagelen=999999", 100),
        ("pagelen=1000000000000", 100),
        ("pagelen=" + "9" * 5000, 100),
    ],
)
def test_page_lengths_are_clamped(world: World, asked: str, length: int) -> None:
    """Ten rows by default, a hundred at most; `pagelen` shows the length used."""
    assert world.get(f"repositories?{asked}")["pagelen"] == length


@pytest.mark.parametrize(
    "asked",
    [
        "pagelen=0", "pagelen=-1", "pagelen=x", "pagelen=99999999999x", "pagelen=000000000000",
        "page=9999999999", "page=0", "page=-1", "page=x", "page=c",
        "page=c!!!", "page=cW10", "page=cWzEsW11d", "page=1.5", "page=%C2%B2", "role=king", "sort=nothing",
        "sort=-", "sort=parent", "sort=name,size", "after=soon", "q=x",
    ],
)  # fmt: skip
def test_an_invalid_parameter_is_refused_by_name(world: World, asked: str) -> None:
    """400, with a message that begins with the parameter."""
    answer = world.served.get(f"/2.0/repositories?{asked}")
    assert answer.status_code == 400, answer.text
    kind = {"q": "query"}.get(asked.partition("=")[0], asked.partition("=")[0])
    error = answer.json()["error"]
    assert error["message"].startswith(f"Invalid {kind}")
    if asked == "sort=parent":
        named = error["detail"].removeprefix("The fields to sort by are ").rstrip(".").split(", ")
        assert {world.served.get(f"/2.0/repositories?sort={one}").status_code for one in named} == {200}


@pytest.mark.parametrize(("size", "status"), [(0, 200), (5, 200), (-5, 400), (2**70, 400)])
def test_a_forged_cursor_counts_no_negative_rows(world: World, size: int, status: int) -> None:
    """A made-up size is not repeated."""
    place = opaque(2, ("2012-01-01T00:00:00.000000Z", 1), size)
    answer = world.served.get(f"/2.0/repositories?page={place}&q=size=null")
    assert answer.status_code == status


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    after=st.lists(
        st.none()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        max_size=4,
    ),
    number=st.integers(-1, 2**64),
)
def test_forged_cursors_are_refused_or_harmless(world: World, after: list[Any], number: int) -> None:
    """A made-up cursor gives some page or 400."""
    raw = base64.urlsafe_b64encode(json.dumps([number, after, None]).encode()).decode()
    answer = world.served.get(f"/2.0/repositories?page=c{quote(raw)}")
    assert answer.status_code in (200, 400), answer.text


SORTS = (
    "",
    "created_on",
    "-created_on",
    "updated_on",
    "-updated_on",
    "name",
    "-size",
    "language",
    "-workspace.slug",
)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("where", ["repositories", "repositories/tied"])
def test_following_next_gives_every_row_once_in_order(world: World, where: str, sort: str) -> None:
    """With equal and missing values, for both callers, as numbered pages do."""
    for headers in ({}, world.holder):
        pages = list(world.walked(f"{where}?pagelen=7&sort={sort}", **headers))
        names = _names(pages)
        assert len(names) == len(set(names)) == pages[0]["size"]
        assert [page["page"] for page in pages] == list(range(1, len(pages) + 1))
        whole = world.get(f"{where}?pagelen=100&sort={sort}", **headers)
        assert _names([whole]) == names
        numbered = [
            world.get(f"{where}?pagelen=7&sort={sort}&page={page['page']}", **headers) for page in pages
        ]
        assert _names(numbered) == names
        assert world.get(f"{where}?pagelen=7&sort={sort}&page=99", **headers)["values"] == []


def test_rows_follow_the_requested_order(world: World) -> None:
    """Ascending, nulls come first; descending, last."""
    for sort, turn in (("updated_on", 1), ("-updated_on", -1)):
        listed = world.get(f"repositories/tied?pagelen=100&sort={sort}")["values"]
        dates = [row["updated_on"] or "" for row in listed]
        assert dates == sorted(dates)[::turn]


def test_next_keeps_query_and_sort(world: World) -> None:
    """Query, order, length and fields are kept; the size of a query is counted once."""
    path = 'repositories/tied?q=language="go"&sort=-size&pagelen=5&fields=next,size,values.full_name'
    pages = list(world.walked(path, **world.holder))
    assert len(pages) > 2
    assert {page["size"] for page in pages} == {len(_names(pages))}
    assert {tuple(sorted(row)) for page in pages for row in page["values"]} == {("full_name",)}
    asked = parse_qs(urlsplit(pages[0]["next"]).query)
    assert asked["q"] == ['language="go"']
    assert asked["pagelen"] == ["5"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_next_ends_as_the_requested_address(world: World, slash: str) -> None:
    """One program cuts the query out of it, behind the last slash, and appends it to its own address."""
    page = world.get(f"repositories/tied{slash}?pagelen=1")
    assert page["next"].partition("?")[0].endswith(f"/2.0/repositories/tied{slash}")


@pytest.mark.parametrize(
    "asked",
    [
        "repositories/tied?pagelen=3", "repositories/tied?fields=next,values.name", "repositories/none",
        "repositories/tied/r1", "repositories/tied/r1/refs?pagelen=2", "repositories/tied?q=name=null",
    ],
)  # fmt: skip
def test_json_has_a_blank_after_each_comma_and_colon(world: World, asked: str) -> None:
    """As Bitbucket writes it: shell scripts cut it at `"slug": "` and `"next": "`."""
    for headers in ({}, world.holder, world.holder):
        text = world.served.get(f"/2.0/{asked}", headers=headers).text
        assert text == json.dumps(json.loads(text), ensure_ascii=False)


def test_previous_leads_to_the_page_before(world: World) -> None:
    """By number, from the second page on."""
    first = world.get("repositories/tied?pagelen=5")
    second = world.get(first["next"])
    assert "previous" not in first
    assert _names([world.get(second["previous"])]) == _names([first])


def test_changes_between_pages_lose_and_repeat_no_row(public_db: FixtureDb) -> None:
    """Between two pages, one earlier row is deleted and one is added."""
    public_db.repositories(
        [repository(f"o/r{n}", owner("o"), created_at=f"2020-01-0{n}T00:00:00.000000Z") for n in range(1, 8)]
    )
    world = World(public_db)
    first = world.get("repositories/o?pagelen=3")
    public_db.gone("o/r1")
    public_db.repositories([repository("o/r0", owner("o"), created_at="2019-01-01T00:00:00.000000Z")])
    rest = _names(world.walked(first["next"]))
    assert _names([first]) + rest == [f"o/r{n}" for n in range(1, 8)]


def test_pages_after_a_long_value_are_requested_by_number(public_db: FixtureDb) -> None:
    """An address with the value in it would be refused; rows are complete all the same."""
    public_db.repositories(
        [repository(f"o/r{n}", owner("o"), description="x" * 9000 + str(n % 3)) for n in range(6)]
    )
    world = World(public_db)
    pages = list(world.walked("repositories/o?pagelen=2&sort=-description&q=description!=null"))
    assert max(len(page.get("next", "")) for page in pages) < 200
    assert sorted(_names(pages)) == [f"o/r{n}" for n in range(6)]


def test_the_global_listing_pages_by_after(world: World) -> None:
    """A client that uses only `after` of `next` sees every row with a date."""
    seen, after = set[str](), "1970-01-01T00:00:00+00:00"
    for _ in range(50):
        page = world.get(f"repositories?pagelen=30&after={quote(after)}")
        seen.update(_names([page]))
        if "next" not in page:
            break
        (after,) = parse_qs(urlsplit(page["next"]).query)["after"]
    dated = world.get("repositories?pagelen=100&q=created_on!=null")
    assert seen == set(_names([dated]))


def test_after_selects_rows_from_that_moment(world: World) -> None:
    """Rows of exactly that moment are included, earlier ones are not."""
    names = _names(world.walked("repositories?after=2013-01-01T00:00:00Z&pagelen=9"))
    expected = world.get("repositories?pagelen=100&q=created_on>=2013-01-01")
    assert names == _names([expected])
    assert names


def test_refs_of_one_name_are_told_apart(world: World) -> None:
    """A branch and a tag of one name are both listed, also across two pages."""
    for length in range(1, 6):
        listed = [
            (row["name"], row["type"])
            for page in world.walked(f"repositories/tied/r1/refs?pagelen={length}")
            for row in page["values"]
        ]
        assert len(listed) == len(set(listed)) == 13
        assert listed == sorted(listed)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_equals_get_without_a_body(world: World, method: str) -> None:
    """With the same headers."""
    answer = world.served(method, "/2.0/repositories?pagelen=3")
    assert answer.status_code == 200
    assert (len(answer.content) > 0) == (method == "GET")
    assert int(answer.headers["Content-Length"]) > 100
    assert answer.headers["X-RateLimit-Limit"] == "1000000"


# --- fields --------------------------------------------------------------------------------------

WHOLE = {"a": 1, "b": {"c": 2, "d": {"e": 3, "f": 4}}, "values": [{"x": 1, "y": {"z": 2}}, {"x": 3}]}


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ("", WHOLE),
        ("a", {"a": 1}),
        ("b.d.e,values.x", {"b": {"d": {"e": 3}}, "values": [{"x": 1}, {"x": 3}]}),
        ("nothing,values.nothing", {"values": [{}, {}]}),
        ("b,b.c", {"b": WHOLE["b"]}),
        ("-b,-values", {"a": 1}),
        (
            "-b.d.f,-values.y,-nothing.x",
            {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "values": [{"x": 1}, {"x": 3}]},
        ),
        ("+values.y", WHOLE),
        (" values.y", WHOLE),
        ("a,+b.c", {"a": 1, "b": {"c": 2}}),
        ("b,-b.d", {"b": {"c": 2}}),
        ("*", WHOLE),
        ("b.*", {"b": WHOLE["b"]}),
        ("*,-b", {"a": 1, "values": WHOLE["values"]}),
        ("values.*.z", {"values": [{"x": 1, "y": {"z": 2}}, {"x": 3}]}),
        (",,a,", {"a": 1}),
        ("a.b.c.d", {"a": 1}),
        ("." * 100, {}),
        ("-b,+b.d.e", {**WHOLE, "b": {"d": {"e": 3}}}),
        ("-values,+values.y.z", {**WHOLE, "values": [{"y": {"z": 2}}, {}]}),
        ("+b.d,-b", {"a": 1, "values": WHOLE["values"]}),
        ("a,+b.d,-b.d.e", {"a": 1, "b": {"d": {"f": 4}}}),
        ("-values.*.z", {**WHOLE, "values": [{"x": 1, "y": {}}, {"x": 3}]}),
        ("-*.d", {**WHOLE, "b": {"c": 2}}),
        ("-*,+a", {"a": 1}),
        ("-*.d,-b.c", {**WHOLE, "b": {}}),
    ],
)
def test_fields_selects_keys(fields: str, left: Any) -> None:
    """Dotted paths, included and excluded; unknown ones are ignored."""
    assert selection(fields).of(WHOLE) == left


@given(st.text(alphabet="ab.,+-* cdvalues", max_size=60))
def test_any_fields_give_a_subset_of_the_object(fields: str) -> None:
    """Never an error, and never a value that the whole object lacks."""

    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(key in whole and within(part[key], whole[key]) for key in part)
        if isinstance(part, list):
            return len(part) == len(whole) and all(map(within, part, whole))
        return bool(part == whole)

    assert within(selection(fields).of(WHOLE), WHOLE)


PULLREQUEST = {
    "id": 1, "state": "OPEN", "links": {"self": {"href": "s"}, "html": {"href": "h"}},
    "author": {"username": "a", "links": {"self": {"href": "as"}, "html": {"href": "ah"}}},
    "reviewers": [{"username": "r1", "uuid": "{1}"}, {"username": "r2", "uuid": "{2}"}],
}  # fmt: skip
LIST = {"size": 1, "page": 1, "next": "n", "values": [PULLREQUEST]}


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ("values.id,values.reviewers.username,values.state",
         {"values": [{"id": 1, "reviewers": [{"username": "r1"}, {"username": "r2"}], "state": "OPEN"}]}),
        ("-values", {"size": 1, "page": 1, "next": "n"}),
        ("next,values.links.html.href", {"next": "n", "values": [{"links": {"html": {"href": "h"}}}]}),
        ("-values.links,+values.links.html.href",
         {**LIST, "values": [{**PULLREQUEST, "links": {"html": {"href": "h"}}}]}),
        ("-values.*.links,+values.author.links.html.href",
         {**LIST, "values": [{**PULLREQUEST, "author":
                              {"username": "a", "links": {"html": {"href": "ah"}}}}]}),
        ("values.*.username",
         {"values": [{"id": 1, "state": "OPEN", "links": {}, "author": {"username": "a"},
                      "reviewers": [{"username": "r1"}, {"username": "r2"}]}]}),
    ],
)  # fmt: skip
def test_fields_work_as_documented_on_a_list(fields: str, left: Any) -> None:
    """The forms of Bitbucket's documentation, and those that clients send."""
    assert selection(fields).of(LIST) == left


def test_fields_works_on_single_objects(world: World) -> None:
    """Not only on lists."""
    told = world.get("repositories/tied/r1?fields=full_name,owner.username,links.clone,mainbranch.name")
    assert told == {
        "full_name": "tied/r1", "owner": {"username": "tied"}, "links": {"clone": []},
        "mainbranch": {"name": "master"},
    }  # fmt: skip


HREF = {"href": "https://api.example.com/tied/r1"}


@pytest.mark.parametrize(
    ("query", "left"),
    [
        # As the vendor's documentation writes them, with names of repositories in place of pull requests'.
        ("fields=uuid,links.html.href", {"uuid": "{tied/r1}", "links": {"html": HREF}}),
        ("fields=-*,%2Bslug,%2Blinks.html", {"slug": "r1", "links": {"html": HREF}}),
        ("fields=-*,+slug,+links.html", {"slug": "r1", "links": {"html": HREF}}),
        ("fields=slug,%2Bowner.username", {"slug": "r1", "owner": {"username": "tied"}}),
        ("fields=%2Bowner.username,slug", {"slug": "r1", "owner": {"username": "tied"}}),
        ("fields=-*,%2Blinks.html,-links.html.href", {"links": {"html": {}}}),
        ("fields=links,-links.*,%2Blinks.html", {"links": {"html": HREF}}),
        ("fields=owner,-owner.*,%2Bowner.username", {"owner": {"username": "tied"}}),
        # Encoded, repeated, with spaces, and with names that there are not.
        ("fields=uuid%2Cslug", {"uuid": "{tied/r1}", "slug": "r1"}),
        ("fields=uuid&fields=slug", {"uuid": "{tied/r1}", "slug": "r1"}),
        ("fields=-*&fields=%2Bslug", {"slug": "r1"}),
        ("fields=uuid,%20slug", {"uuid": "{tied/r1}", "slug": "r1"}),
        ("fields=uuid,+slug", {"uuid": "{tied/r1}", "slug": "r1"}),
        ("fields=slug,reviewers,nothing.at.all", {"slug": "r1"}),
        ("fields=nothing", {}),
    ],
)
def test_fields_are_understood_as_clients_encode_them(world: World, query: str, left: Any) -> None:
    """An unescaped plus arrives as a space; some clients repeat the parameter."""
    assert world.get(f"repositories/tied/r1?{query}") == left


@pytest.mark.parametrize(
    "query", ["fields=", "fields=,", "fields=%20", "fields", "fields=%2Breviewers", "fields=-x"]
)
def test_fields_that_change_nothing_leave_all(world: World, query: str) -> None:
    """Empty ones, an additional unknown one, an excluded unknown one."""
    assert world.get(f"repositories/tied/r1?{query}") == world.get("repositories/tied/r1")


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("fields=values.slug,values.links.html.href", ({"values"}, {"slug", "links"}, {"html"})),
        ("fields=next,values.slug", ({"values", "next"}, {"slug"}, None)),
        ("fields=values.slug,next,size&pagelen=1", ({"values", "next", "size"}, {"slug"}, None)),
        ("fields=-values.*,%2Bvalues.slug", ({"values", "next", "size", "page", "pagelen"}, {"slug"}, None)),
        (
            "fields=-values.*,%2Bvalues.links.html.href",
            ({"values", "next", "size", "page", "pagelen"}, {"links"}, {"html"}),
        ),
        ("fields=-values", ({"next", "size", "page", "pagelen"}, None, None)),
        ("fields=values", ({"values"}, ..., ...)),
        ("fields=values.*.html.href,values.slug", ({"values"}, ..., ...)),
    ],
)
def test_fields_reach_into_the_values_of_a_page(world: World, query: str, left: Any) -> None:
    """Links to other pages keep the parameter."""
    page = world.get(f"repositories/tied?{query}")
    keys, of_values, of_links = left
    assert page.keys() == keys
    if of_values not in (None, ...):
        assert all(one.keys() == of_values for one in page["values"])
    if of_links not in (None, ...):
        assert all(one["links"].keys() == of_links for one in page["values"])
    if "next" in page and "values" in page:
        assert world.get(page["next"])["values"][0].keys() == page["values"][0].keys()


def test_after_concerns_the_listing_that_has_it(world: World) -> None:
    """Other lists ignore it, and so does an empty value."""
    for what in ("repositories/tied?after=2001-01-01", "repositories?after=", "workspaces?after=x"):
        assert "previous" in world.get(f"{what}&page=2&pagelen=1")
    assert "previous" not in world.get("repositories?after=2001-01-01&page=2&pagelen=1")


def test_fields_changes_no_value(world: World) -> None:
    """Whole objects and selected parts have the same values."""
    whole = world.get("repositories/jespern/django-piston")
    assert world.get("repositories/jespern/django-piston?fields=*") == whole
    assert world.get("repositories/jespern/django-piston?fields=-nothing") == whole
    assert world.get("repositories/jespern/django-piston?fields=links")["links"] == whole["links"]


# --- indexes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", [ANONYMOUS, Caller(name="t", token_id=1, sees_all=True)])
@pytest.mark.parametrize("owners", [None, [3]])
def test_pages_are_read_from_an_index(filled: FixtureDb, caller: Caller, owners: list[int] | None) -> None:
    """By SQLite's plan, nothing is sorted and counts read no row."""
    source = listings.repositories(caller, owners=owners).source
    for order in ("r.created_at, r.id", "r.updated_at DESC, r.id DESC")[: 2 if owners else 1]:
        sql = f"EXPLAIN QUERY PLAN SELECT r.id FROM {source.table} WHERE {source.where} ORDER BY {order}"
        plan = [row[3] for row in filled.store.rows(sql, dict(source.values))]
        assert len(plan) == 1, plan
        assert "USING" in plan[0]
        assert "INDEX repositories_" in plan[0]


@pytest.mark.parametrize(
    ("owners", "found"), [(None, "created_at=? AND id>?"), ([3], "created_at=? AND rowid>?")]
)
def test_a_cursor_among_equal_dates_is_found_by_index(
    filled: FixtureDb, owners: list[int] | None, found: str
) -> None:
    """A bulk import gives thousands of rows one date; the index finds the row itself."""
    listing = listings.repositories(ANONYMOUS, owners=owners)
    source = listing.source
    window = PageWindow(after=("2012-01-01T00:00:00.000000Z", 5))
    condition, values = segments(listing.default, source.keys, window)[0]
    sql = f"EXPLAIN QUERY PLAN SELECT r.id FROM {source.table} WHERE {source.where} {condition}"
    plan = [row[3] for row in filled.store.rows(sql, {**source.values, **values})]
    assert found in plan[0], plan
