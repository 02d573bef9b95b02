"""Every response of the served APIs matches the OpenAPI documents, for any request and caller.

`make fuzz` asks far more than the test suite does, and each time something else.
"""

import json
import os
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as ET

import pytest
import yaml
from asgi_client import basic, bearer, client_of, make_tokens
from fake_writer import FakeWriter
from fixtures_db import fill_mixed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_world import KNOWN, NAMES, VALID, Judge, Served, good, served_mirror, valid

from mirror.serve.openapi.document import documented, template_of

FUZZ = int(os.environ.get("FUZZ", "0"))
"""How many examples of each sort are tried, new ones each time; 0 means a few, always the same."""

HOSTILE = (
    "", "0", "-1", "99999999999999999999", "true", "nonsense", "%", "'", '"', "' OR 1=1 --", "a" * 3000,
    "\x00", "é\u202e", "<script>", "../..", "{}", "name ~", 'name ~ "a" AND (', "values.", "*", "c!!!",
    "-values.links,+*", "2000-01-01", "9999-12-31T23:59:59+00:00", "[1,2]", "\U0001f600", "\ud83d",
)  # fmt: skip
"""Values that no parameter expects."""


MOMENTS = (
    "Tue, 03 Nov 2026 10:00:00 GMT", "Sun, 01 Nov 2026 12:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2300",
    "Fri, 31 Dec 9999 23:59:59 GMT", "yesterday", "",
)  # fmt: skip
"""Values of Accept-Datetime."""

ANYTHING = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), ANYTHING),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ANYTHING, inner, max_size=3)),
    max_leaves=5,
)


def trying(few: int) -> settings:
    """Return how to search: `few` fixed examples, or as many as FUZZ says."""
    return settings(
        max_examples=FUZZ or few,
        derandomize=not FUZZ,
        database=None,
        print_blob=bool(FUZZ),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Made once: nothing writes to it."""
    return served_mirror(tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def judges(mirror: Served) -> dict[str, Judge]:
    """One for each document."""
    return {name: Judge(document) for name, document in mirror.documents.items()}


NEVER_ANSWERED = {"/users/{owner}/followers"}
"""Routes of which no upstream tells anything."""


@pytest.mark.parametrize("name", NAMES)
def test_every_route_answers_by_its_schema(mirror: Served, judges: dict[str, Judge], name: str) -> None:
    """For every caller; at least one of them gets the object."""
    described = documented()[name][1]
    answered = set[str]()
    for path, item in mirror.documents[name]["paths"].items():
        if "get" not in item:
            continue
        needed = {
            one["name"]: valid(one["name"], one["schema"])[0]
            for one in item["get"].get("parameters", ())
            if one["required"]
        }
        for caller, headers in mirror.callers.items():
            asked = f"{described.prefix}{good(path)}?{urlencode(needed)}"
            got = mirror.client.get(asked, headers=headers)
            judges[name].check(item["get"], got, f"{caller}: {asked}")
            if got.status_code == 200:
                answered.add(path)
    readable = {template_of(pattern) for pattern in described.reads}
    assert answered == readable - NEVER_ANSWERED


@pytest.mark.parametrize("name", NAMES)
@trying(100)
@given(chosen=st.data())
def test_whatever_is_asked_is_answered_by_the_schema(
    mirror: Served, judges: dict[str, Judge], name: str, chosen: st.DataObject
) -> None:
    """Hostile names and parameters, valid ones, and all of them together."""
    readable = [(path, item) for path, item in mirror.documents[name]["paths"].items() if "get" in item]
    path, item = chosen.draw(st.sampled_from(readable))
    caller = chosen.draw(st.sampled_from(sorted(mirror.callers)))
    address = documented()[name][1].prefix + chosen.draw(paths(path, item))
    query = urlencode(chosen.draw(parameters(item["get"])), errors="surrogatepass")
    moment = {"Accept-Datetime": chosen.draw(st.sampled_from(MOMENTS))} if chosen.draw(st.booleans()) else {}
    got = mirror.client.get(f"{address}?{query}", headers={**mirror.callers[caller], **moment})
    judges[name].check(item["get"], got, f"{caller}: {address}?{query} {moment}")


@st.composite
def paths(draw: st.DrawFn, path: str, item: Any) -> str:
    """Fill a path: with what is there, with names of other things, or with anything."""
    if draw(st.booleans()):
        return good(path)
    for place in item.get("parameters", ()):
        value = draw(st.one_of(st.sampled_from(KNOWN[place["name"]]), ANYTHING))
        safe = "/" if place["name"] == "more" else ""
        encoded = quote(value, safe=safe, errors="surrogatepass").replace(".", "%2E")
        path = path.replace(f"{{{place['name']}}}", encoded or "x")
    return path


@st.composite
def parameters(draw: st.DrawFn, operation: Any) -> list[tuple[str, str]]:
    """Choose parameters that the operation has, mostly with values that it takes, and some others."""
    known = {one["name"]: one["schema"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    names = [name for name in known if draw(st.booleans())]
    names += draw(st.lists(st.one_of(st.sampled_from(sorted({*known, *VALID})), ANYTHING), max_size=2))
    sent = list[tuple[str, str]]()
    for name in names:
        usual = st.sampled_from(valid(name, known.get(name, {})))
        sent.append((name, draw(st.one_of(usual, usual, st.integers().map(str), ANYTHING))))
    return sent


@pytest.mark.parametrize("path", list(map(template_of, documented()["1.0"][1].reads)))
def test_every_form_of_an_answer_says_the_same(mirror: Served, path: str) -> None:
    """API 1.0 answers as JSON, YAML, XML and a script; errors too."""
    for caller, headers in mirror.callers.items():
        told = {
            # What is not mirrored is told with the address that was asked.
            form: mirror.client.get(f"/1.0{good(path)}?name=a&{form}", headers=headers).text.replace(form, "")
            for form in ("format=json", "format=yaml", "format=xml", "callback=f")
        }
        body = json.loads(told["format=json"])
        assert yaml.safe_load(told["format=yaml"]) == body
        assert in_xml(ET.fromstring(told["format=xml"].encode())) == in_json(body)  # noqa: S314
        if caller != "user":  # a browser sends a Basic login by itself, so a script gets what a stranger gets
            assert json.loads(told["callback=f"].removeprefix("/**/f(").removesuffix(");")) == body


def in_json(value: Any) -> Any:
    """Return what XML can express of a value: texts, and names with values in order."""
    if isinstance(value, dict):
        return [(key, in_json(inner)) for key, inner in value.items()] or ""
    if isinstance(value, list):
        return [("resource", in_json(inner)) for inner in value] or ""
    return "" if value is None else str(value)


def in_xml(element: ET.Element) -> Any:
    """Return what an element contains, in the same form."""
    return [(child.get("name") or child.tag, in_xml(child)) for child in element] or element.text or ""


@pytest.mark.parametrize(
    ("name", "method", "path", "sent"),
    [
        ("1.0", "post", "/repositories", {"data": {"name": "made", "owner": "jespern"}}),
        ("1.0", "post", "/repositories", {"data": {"scm": "cvs"}}),
        ("1.0", "put", "/repositories/{owner}/{slug}", {"data": {"description": "New"}}),
        ("1.0", "post", "/repositories/{owner}/{slug}/fork", {"data": {"name": "forked", "owner": "mine"}}),
        ("2.0", "post", "/repositories/{workspace}/{repository}/forks", {"json": {"workspace": "mine"}}),
        ("2.0", "put", "/repositories/{workspace}/{repository}", {"json": {"description": "Newer"}}),
        ("2.0", "put", "/repositories/{workspace}/{repository}", {"json": {"size": [], "nonsense": 1}}),
        ("1.0", "delete", "/repositories/{owner}/{slug}", {}),
        ("2.0", "delete", "/repositories/{workspace}/{repository}", {}),
    ],
)
def test_every_answer_to_a_write_fits_its_schema(
    writable: Any, name: str, method: str, path: str, sent: Any
) -> None:
    """Also refusals; the last requests delete the repository and get 404."""
    client, headers = writable
    document = client.json(f"/-/openapi/{name}.json")
    got = client(method.upper(), f"/{name}{good(path)}", headers=headers, **sent)
    assert got.status_code in {200, 201, 204, 400, 404}
    Judge(document).check(document["paths"][path][method], got, path)


CHANGES = [
    ("1.0", "post", "/repositories"),
    ("1.0", "put", "/repositories/{owner}/{slug}"),
    ("1.0", "post", "/repositories/{owner}/{slug}/fork"),
    ("2.0", "post", "/repositories/{workspace}/{repository}"),
    ("2.0", "put", "/repositories/{workspace}/{repository}"),
    ("2.0", "post", "/repositories/{workspace}/{repository}/forks"),
]


@trying(60)
@given(chosen=st.data())
def test_whatever_is_written_is_answered_by_the_schema(rewritable: Any, chosen: st.DataObject) -> None:
    """Settings of every sort, and what is none."""
    client, headers, judges = rewritable
    name, method, path = chosen.draw(st.sampled_from(CHANGES))
    document, judge = judges[name]
    named = document["components"]["schemas"]["Settings"]["properties"]
    body = chosen.draw(bodies(named))
    if chosen.draw(st.booleans()):
        content, kind = json.dumps(body), "application/json"
    else:
        content, kind = urlencode(body, errors="surrogatepass"), "application/x-www-form-urlencoded"
    made = chosen.draw(ANYTHING) if path.endswith("{repository}") and method == "post" else ""
    address = f"/{name}{good(path)}{quote(made, safe='', errors='surrogatepass')}"
    got = client(method.upper(), address, headers={**headers, "Content-Type": kind}, content=content)
    judge.check(document["paths"][path][method], got, f"{method} {address} {content}")


@st.composite
def bodies(draw: st.DrawFn, named: Any) -> dict[str, Any]:
    """Choose settings, mostly with valid values."""
    usual = st.one_of(st.sampled_from(("true", "git", "allow_forks", "jespern", "A name", True)), JSON_VALUES)
    body = {name: draw(usual) for name in named if draw(st.booleans())}
    if draw(st.booleans()):
        body |= draw(
            st.dictionaries(
                st.one_of(st.sampled_from(("slug", "uuid", "links")), ANYTHING), usual, max_size=2
            )
        )
    return {key: value for key, value in body.items() if "\ud83d" not in f"{key}{value}"}


@pytest.fixture(scope="module")
def rewritable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A mirror of its own that takes writes, the headers of who may write, and the documents with judges."""
    filled = fill_mixed(tmp_path_factory.mktemp("rewritten") / "mirror.db")
    headers = basic("jespern", make_tokens(filled.store)["write"])
    client = client_of(filled.path, writes=True, writer=FakeWriter(filled))
    documents = {name: client.json(f"/-/openapi/{name}.json") for name in ("1.0", "2.0")}
    return client, headers, {name: (document, Judge(document)) for name, document in documents.items()}


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A mirror that takes writes, and the headers of who may write."""
    filled = fill_mixed(tmp_path_factory.mktemp("written") / "mirror.db")
    headers = bearer(make_tokens(filled.store)["write"])
    return client_of(filled.path, writes=True, writer=FakeWriter(filled)), headers
