"""Queries of API 2.0: the grammar, its errors, and every answer beside a look at each row in plain Python."""

import operator
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import FixtureDb, fill_mixed, hg_ref, owner, repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.queries.visibility import ANONYMOUS, Caller
from mirror.serve.api2 import listings
from mirror.serve.api2.query_language import (
    DEEPEST,
    LONGEST,
    MOST_COMPARISONS,
    Comparison,
    Expression,
    Joined,
    QueryError,
    Value,
    condition_of,
    natural,
    parse,
)
from mirror.times import from_text

ODD = (
    ("odd/strasse", {"name": "Straße 100% _x_", "description": None, "language": "C++"}),
    ("odd/kelvin", {"name": "\u212a-Scale", "website": None, "size": None, "created_at": None}),
    ("odd/quoted", {"name": 'say "hi" \\ there', "has_issues": None, "project_key": "K", "is_private": True}),
    ("odd/lines", {"name": "two\nlines", "description": "ÜBER alles", "size": 2**40, "followers_count": 7}),
    ("odd/fork", {"parent_uuid": "{jespern/arriving}", "parent_full_name": "jespern/arriving"}),
    ("odd/Upper", {"updated_at": "2026-01-01T00:00:00.000001Z", "forks_count": 3, "project_name": "Ω"}),
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> FixtureDb:
    """Repositories of every sort, private and public, with odd names and numbers."""
    made = fill_mixed(tmp_path_factory.mktemp("queries") / "mirror.db")
    made.repositories([repository(name, owner("odd", display_name="Ödd"), **said) for name, said in ODD])
    made.refs("odd/Upper", [hg_ref("tag", f"v1.{number}", "a") for number in (9, 10, 2)])
    return made


class World:
    """A served mirror and everything on it, as two callers see it."""

    def __init__(self, filled: FixtureDb) -> None:
        token = make_tokens(filled.store)["read"]
        self.served: AsgiClient = client_of(filled.store.path)
        self.callers: dict[str, dict[str, Any]] = {"anonymous": {}, "holder": {"headers": bearer(token)}}
        self.rows = {
            caller: self.served.json("/2.0/repositories?pagelen=100", **options)["values"]
            for caller, options in self.callers.items()
        }

    def asked(self, caller: str, query: str, more: str = "&pagelen=100") -> Any:
        """Ask the query and return status and body."""
        path = f"/2.0/repositories?q={quote(query)}{more}"
        answer = self.served.get(path, **self.callers[caller])
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def world(filled: FixtureDb) -> World:
    """Made once: nothing here writes."""
    return World(filled)


TEXTS = (
    "name", "slug", "full_name", "description", "website", "language", "scm", "fork_policy", "uuid",
    "mainbranch.name", "project.key", "project.name", "owner.username", "owner.display_name", "owner.uuid",
    "workspace.slug", "workspace.name", "workspace.uuid", "parent.full_name", "parent.uuid",
)  # fmt: skip
NUMBERS = ("size", "followers_count", "forks_count")
FLAGS = ("is_private", "has_issues", "has_wiki")
DATES = ("created_on", "updated_on")
OBJECTS = ("parent", "mainbranch", "project")
WORDS = (
    "", "django", "DJANGO-piston", "jespern", "jespern/django-piston", "strasse", "STRASSE", "straße", "k-s",
    "%", "_", "\\", '"', "\n", "ü", "Ü", "C++", "{odd/fork}", "odd", "git", "hg", "arriving", "Ödd", "Ω",
    "{odd-uuid}", "K", "master", "allow_forks",
)  # fmt: skip
MOMENTS = (
    "2011-11-20T18:25:29+00:00",
    "2011-11-20",
    "2026-10-30T11:00:00+01:00",
    "2026-01-01T00:00:00.000001Z",
    "0001-01-01",
    "9999-12-31",
)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _one(names: Iterable[str], operators: str, values: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    parts = st.tuples(st.sampled_from(list(names)), st.sampled_from(operators.split()), values)
    return parts.map(" ".join)


NULL = st.just("null")
COMPARISONS = st.one_of(
    _one(TEXTS, "= != ~ !~ > >= < <=", st.sampled_from(WORDS).map(_quoted)),
    _one(NUMBERS, "= != > >= < <=", st.sampled_from(("0", "7", "173", "1000", "12.5", "-1", "9" * 30))),
    _one(FLAGS, "= !=", st.sampled_from(("true", "false", "TRUE"))),
    _one(DATES, "= != > >= < <=", st.sampled_from(MOMENTS) | st.sampled_from(MOMENTS).map(_quoted)),
    _one((*TEXTS, *NUMBERS, *FLAGS, *DATES, *OBJECTS), "= !=", NULL),
    st.tuples(
        st.sampled_from(TEXTS),
        st.sampled_from(("IN", "NOT IN", "not in")),
        st.lists(st.sampled_from(WORDS).map(_quoted) | NULL, min_size=1, max_size=3),
    ).map(lambda parts: f"{parts[0]} {parts[1]} ({', '.join(parts[2])})"),
)
EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.tuples(inner, st.sampled_from(("AND", "OR", "and")), inner, st.booleans()).map(
        lambda one: f"({one[0]} {one[1]} {one[2]})" if one[3] else f"{one[0]} {one[1]} {one[2]}"
    ),
    max_leaves=6,
)


def _dug(row: Any, path: str) -> Any:
    for part in path.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _read(value: Value, field: str) -> Any:
    if field in DATES and value.kind != "null":
        return from_text(value.text)
    match value.kind:
        case "number":
            return float(value.text) if "." in value.text else int(value.text)
        case "boolean":
            return value.text == "true"
        case "null":
            return None
    return value.text


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le
}  # fmt: skip


def _holds(part: Expression, row: Any) -> bool:
    """Evaluate a condition on one row, as the documentation says."""
    if isinstance(part, Joined):
        return {"AND": all, "OR": any}[part.word](_holds(one, row) for one in part.parts)
    told = _dug(row, part.field)
    if told is not None and part.field in DATES:
        told = from_text(told)
    return _compared(told, part.operator, [_read(value, part.field) for value in part.values])


def _compared(told: Any, sign: str, values: list[Any]) -> bool:
    if sign in ("=", "IN", "!=", "NOT IN"):
        return (told in values) == (sign in ("=", "IN"))
    if sign in ("~", "!~"):
        contains = told is not None and values[0].casefold() in told.casefold()
        return contains == (sign == "~")
    return told is not None and _ORDERS[sign](told, values[0])


@pytest.mark.parametrize("caller", ["anonymous", "holder"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(query=EXPRESSIONS)
def test_every_query_equals_a_scan_of_the_rows(world: World, caller: str, query: str) -> None:
    """Fields, operators, brackets, nulls: plain Python finds the same rows and size."""
    status, body = world.asked(caller, query)
    assert status == 200, (query, body)
    tree = parse(query)
    expected = {row["full_name"] for row in world.rows[caller] if _holds(tree, row)}
    assert {row["full_name"] for row in body["values"]} == expected, query
    assert body["size"] == len(expected)


_PIECES = st.sampled_from(
    (
        *TEXTS, "size", "created_on", "nothing", "=", "!=", "~", "!~", ">", "<=", "(", ")", ",", "AND", "OR",
        "NOT", "IN", "null", "true", '"text"', '"', "12", "-", "2026-01-01", "2026-13-45", "'x'", "\\", ";",
        "--", "%", "é", "\x00", "\n", "9" * 500,
    )
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(query=st.lists(_PIECES, max_size=9).map(" ".join) | st.text(max_size=40))
def test_random_queries_are_answered_or_refused(world: World, query: str) -> None:
    """No text makes the server fail: it is a query, or 400 with the reason."""
    path = f"/2.0/repositories?q={quote(query.encode('utf-8', 'surrogatepass'))}"
    answer = world.served.get(path)
    assert answer.status_code in (200, 400), (query, answer.text)
    if answer.status_code == 400:
        assert answer.json()["error"]["message"].startswith("Invalid query: ")


def test_and_binds_closer_than_or() -> None:
    """Brackets change the grouping."""
    a, b, c = (Comparison(name, "=", (Value("number", "1"),)) for name in "abc")
    assert parse("a = 1 OR b = 1 AND c = 1") == Joined("OR", (a, Joined("AND", (b, c))))
    assert parse("(a = 1 OR b = 1) AND c = 1") == Joined("AND", (Joined("OR", (a, b)), c))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("nothing = 1", "nothing is not a field"),
        ('size = "big"', "size is a number"),
        ("name = 5", "name is a text"),
        ("name = django", "'django'; put texts in double quotes"),
        ("name = 'django'", "\"'django'\" cannot be read"),
        ('is_private ~ "t"', "is_private ~"),
        ("is_private > true", "is_private > true"),
        ("created_on > null", "created_on > null"),
        ("created_on > 2026-13-45", "created_on is a date"),
        ('created_on > "soon"', "created_on is a date"),
        ('parent = "x"', "parent is an object"),
        ("name", "too early"),
        ("name = ", "too early"),
        ('(name = "x"', "too early"),
        ('name = "x")', "')'"),
        ('name = "x" name = "y"', "'name'"),
        ('NOT name = "x"', "'NOT'"),
        ('name IN "x"', "'('"),
        ('name LIKE "x"', "'LIKE'"),
        ('name = "x', "'\"x' cannot be read"),
        ("size = " + "(" * 3, "'('"),
    ],
)
def test_a_refused_query_names_the_unsupported_part(world: World, query: str, named: str) -> None:
    """The message holds the field, the word or the place."""
    status, body = world.asked("anonymous", query)
    assert status == 400
    assert named in body["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "x" * (LONGEST + 1),
        "(" * (DEEPEST + 2) + "size = 1" + ")" * (DEEPEST + 2),
        " OR ".join(["size = 1"] * (MOST_COMPARISONS + 1)),
        'name = "\x00"',
        'name = "\ud800"',
    ],
)
def test_an_expensive_query_is_refused(query: str) -> None:
    """Limits of length, depth and number stay below SQLite's own; no stored text contains NUL."""
    with pytest.raises(QueryError):
        parse(query)


def test_the_largest_query_is_answered(world: World) -> None:
    """Exactly at the limits, SQLite accepts the statement."""
    deepest = "(" * DEEPEST + "size = 1" + ")" * DEEPEST
    assert world.asked("holder", deepest)[0] == 200
    widest = " OR ".join([f'name !~ "{number}"' for number in range(MOST_COMPARISONS)])
    assert world.asked("holder", widest)[0] == 200


MANY = {
    "size": [*map(str, range(990)), "0.5", "9" * 400, "null"],
    "full_name": [f'"nobody/r{number}"' for number in range(400)] + ['"odd/fork"', '"ODD/UPPER"'],
    "uuid": [f'"{{nobody-{number}}}"' for number in range(400)] + ['"{odd/fork}"', "null"],
    "owner.username": [f'"nobody{number}"' for number in range(500)] + ['"odd"'],
    "created_on": ["2011-11-20"] * 600,
    "language": ['"x"'] * 1500 + ['"C++"'],
    "has_wiki": ["true"] * 1300,
}


@pytest.mark.parametrize("sign", ["IN", "NOT IN"])
@pytest.mark.parametrize("field", MANY)
def test_a_list_of_a_thousand_values_is_answered(world: World, field: str, sign: str) -> None:
    """A list of any length works like a short one."""
    query = f"{field} {sign} ({','.join(MANY[field])})"
    assert 4000 < len(query) <= LONGEST
    status, body = world.asked("holder", query)
    assert status == 200, body
    tree = parse(query)
    expected = {row["full_name"] for row in world.rows["holder"] if _holds(tree, row)}
    assert {row["full_name"] for row in body["values"]} == expected


def test_an_unescaped_plus_stays_a_plus(world: World) -> None:
    """Dates with offsets are written into addresses by hand, where a plus means a space."""
    path = "/2.0/repositories?q=updated_on>2026-10-30T09:59:59+00:00"
    assert [row["full_name"] for row in world.served.json(path)["values"]] == ["dchambers/django-piston"]


def test_queries_cannot_match_hidden_parents(world: World) -> None:
    """Neither conditions nor order reveal the private parent of a public fork."""
    query = 'parent.full_name ~ "arriving" OR parent.uuid = "{jespern/arriving}"'
    assert world.asked("anonymous", query)[1]["values"] == []
    assert {row["full_name"] for row in world.asked("holder", query)[1]["values"]} == {
        "mcatalbas/copy",
        "odd/fork",
    }
    assert world.asked("anonymous", "parent = null")[1]["size"] == len(
        [row for row in world.rows["anonymous"] if row["parent"] is None]
    )


INDEXED = {
    'full_name = "odd/fork"': "repositories_full_name",
    'full_name IN ("odd/fork", "odd/upper")': "repositories_full_name",
    'uuid = "{odd/fork}"': "sqlite_autoindex_repositories_1",
    'uuid IN ("{odd/fork}", "{odd}")': "sqlite_autoindex_repositories_1",
    'workspace.slug = "odd"': "(owner_id=?)",
    'owner.username IN ("odd", "jespern")': "(owner_id=?)",
    'workspace.uuid = "{odd-uuid}"': "(owner_id=?)",
    'name ~ "x" AND full_name = "odd/fork"': "repositories_full_name",
}


@pytest.mark.parametrize("query", INDEXED)
@pytest.mark.parametrize("caller", [ANONYMOUS, Caller(name="t", token_id=1, sees_all=True)])
def test_a_query_by_name_uses_an_index(filled: FixtureDb, query: str, caller: Caller) -> None:
    """By SQLite's plan, no table is scanned."""
    listing = listings.repositories(caller)
    source, condition = listing.source, condition_of(query, listing.fields)
    sql = f"EXPLAIN QUERY PLAN SELECT r.id FROM repositories r WHERE {source.where} AND {condition.sql}"
    plan = filled.store.rows(sql.replace("mirror_contains", "instr"), {**source.values, **condition.values})
    assert any(INDEXED[query] in row[3] for row in plan), [tuple(row) for row in plan]


def test_refs_are_queried_and_sorted(world: World) -> None:
    """With sort=name by the numbers in names, otherwise by their bytes."""
    refs = "/2.0/repositories/odd/upper/refs/tags"
    plain, sorted_, backwards, some = (
        [ref["name"] for ref in world.served.json(f"{refs}{more}")["values"]]
        for more in ("", "?sort=name", "?sort=-name", '?q=name~"1" AND name !~ "10"')
    )
    assert plain == ["v1.10", "v1.2", "v1.9"]
    assert sorted_ == ["v1.2", "v1.9", "v1.10"] == backwards[::-1]
    assert some == ["v1.2", "v1.9"]


@given(st.lists(st.integers(0, 10**30), min_size=2, max_size=2))
def test_natural_order_sorts_numbers_by_value(numbers: list[int]) -> None:
    """Whatever their length and their leading zeros."""
    first, second = (natural(f"v{number:05}") for number in numbers)
    assert (first < second) == (numbers[0] < numbers[1])
