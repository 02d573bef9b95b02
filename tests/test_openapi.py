"""The OpenAPI documents describe every route, and every answer is as they say."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from datasette.utils.asgi import Request
from fake_writer import FakeWriter
from fixtures_db import fill_mixed, repository
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from mirror.model import Project
from mirror.serve.api_edge import Api, answer
from mirror.serve.database import mirrors
from mirror.serve.exchange import MIRROR, SERVED
from mirror.serve.openapi import view
from mirror.serve.openapi.document import summary_of, template_of
from mirror.serve.openapi.schemas import Description, Names
from mirror.serve.state import served

PISTON = "/repositories/jespern/django-piston"
NAMES = ("1.0", "2.0", "datacenter")
HOSTILE = (
    "", "0", "-1", "99999999999999999999", "true", "nonsense", "%", "'", '"', "' OR 1=1 --", "a" * 3000,
    "\x00", "é\u202e", "<script>", "../..", "{}", "name ~", 'name ~ "a" AND (', "values.", "*", "c!!!",
    "-values.links,+*", "2000-01-01", "9999-12-31T23:59:59+00:00", "[1,2]", "\U0001f600", "\ud83d",
)  # fmt: skip
"""Values that no parameter expects."""

KNOWN = {
    "owner": ("jespern", "mcatalbas", "brodie"),
    "slug": ("django-piston", "arriving", "copy", "web.site"),
    "workspace": ("jespern", "mcatalbas", "{jespern-uuid}", "brodie"),
    "repository": ("django-piston", "arriving", "{jespern/arriving}", "copy"),
    "project": ("~jespern", "jespern", "brodie", "~mcatalbas"),
    "user": ("jespern", "mcatalbas"),
    "name": ("default", "0.2.1", "tip", "a" * 40, "aaaa", "mcatalbas", "PROJ"),
    "more": ("commits", "pull-requests/1", "browse"),
}
"""Names that may stand in a path."""

GOOD = {
    "owner": "jespern", "slug": "django-piston", "workspace": "jespern", "repository": "django-piston",
    "project": "jespern", "user": "jespern", "more": "commits",
}  # fmt: skip
"""Names of what there is, but for those in the address of one of `ITEMS`."""

ITEMS = {
    "/workspaces/{workspace}/members/{name}": "/workspaces/brodie/members/mcatalbas",
    "/workspaces/{workspace}/members": "/workspaces/brodie/members",
    "/workspaces/{workspace}/projects/{name}": "/workspaces/mcatalbas/projects/PROJ",
    "/workspaces/{workspace}/projects": "/workspaces/mcatalbas/projects",
    "/repositories/{workspace}/{repository}/commit/{name}": f"{PISTON}/commit/aaaaaaaaa",
    "/repositories/{workspace}/{repository}/refs/branches/{name}": f"{PISTON}/refs/branches/default",
    "/repositories/{workspace}/{repository}/refs/tags/{name}": f"{PISTON}/refs/tags/0.2.3",
    "/projects/{project}/repos/{repository}/tags/{name}": "/projects/jespern/repos/django-piston/tags/0.2.3",
}  # fmt: skip

VALID = {
    "page": ("1", "2", "1000000"),
    "pagelen": ("1", "2", "100"),
    "sort": ("name", "-name", "full_name", "-created_on"),
    "q": ('name ~ "a"', "is_private = true", 'full_name = "jespern/django-piston"'),
    "fields": ("values.name", "-links", "-values.links", "size", "*", "next,values.*.uuid"),
    "after": ("2000-01-01", "2030-01-01T00:00:00Z"),
    "name": ("piston", "a", ""),
    "callback": ("f",),
    "start": ("0", "1", "5"),
    "limit": ("1", "2", "100"),
}


class Served(msgspec.Struct):
    """A served mirror, the headers of each sort of caller, and the documents."""

    client: AsgiClient
    callers: dict[str, dict[str, str]]
    documents: dict[str, Any]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A mirror with private rows of every sort and a project."""
    filled = fill_mixed(tmp_path_factory.mktemp("openapi") / "mirror.db")
    filled.repositories(
        (
            repository(
                "mcatalbas/grouped",
                project_key="PROJ",
                project_name="A project",
                project_uuid="{project}",
                project=Project(key="PROJ", uuid="{project}", name="A project", description="Kept"),
                clone_https="https://example.com/grouped.git",
                archived=True,
            ),
        )
    )
    known = make_tokens(filled.store)
    filled.store.close()
    client = client_of(filled.path)
    callers = {
        "stranger": {},
        "token": bearer(known["read"]),
        "user": basic("jespern", known["user"]),
        "revoked": bearer(known["revoked"]),
    }
    documents = {name: client.json(f"/-/openapi/{name}.json") for name in NAMES}
    return Served(client, callers, documents)


@pytest.fixture(scope="module")
def documents(mirror: Served) -> dict[str, Any]:
    """All documents, as they are served."""
    return mirror.documents


class Recorded(dict[str, str]):
    """Parameters that remember in `read` which of them were looked for."""

    def __init__(self, values: Any, read: set[str]) -> None:
        super().__init__(values)
        self.read = read

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self.read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)


@pytest.mark.parametrize("name", NAMES)
def test_a_document_is_valid(documents: dict[str, Any], name: str) -> None:
    """It is OpenAPI 3.1, and each operation has a name of its own."""
    OpenAPIV31SpecValidator(documents[name]).validate()


@pytest.mark.parametrize(("api", "described"), view.DOCUMENTED.values(), ids=NAMES)
def test_every_route_is_described(api: Api, described: Description) -> None:
    """A route that is added to a table fails here until it says what it takes and answers."""
    assert set(described.reads) == set(api.readers)
    written = {(pattern, method) for pattern, methods in api.writers.items() for method in methods}
    assert set(described.writes) == written
    for handler in (*api.readers.values(), *(one for ways in api.writers.values() for one in ways.values())):
        assert re.match(r"(GET|POST|PUT|DELETE) ", summary_of(handler)), handler
    for operation in described.reads.values():
        assert operation.answer is not None


@pytest.mark.parametrize(("api", "described"), view.DOCUMENTED.values(), ids=NAMES)
def test_unmirrored_resources_are_described(api: Api, described: Description) -> None:
    """Each address of the list is one that is refused, and none answers otherwise."""
    assert described.unmirrored
    for pattern in described.unmirrored:
        assert api.unmirrored(pattern) is not None, pattern
        assert pattern not in api.readers


def test_every_path_is_served(documents: dict[str, Any]) -> None:
    """The paths of a document are those of the tables, written with braces."""
    for name, (api, described) in view.DOCUMENTED.items():
        patterns = {*api.readers, *api.writers, *described.unmirrored}
        assert set(documents[name]["paths"]) == {template_of(pattern) for pattern in patterns}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_that_a_route_reads_is_described(mirror: Served, name: str) -> None:
    """Each route is asked with and without its parameters, and remembers those that it looks for."""
    api, described = view.DOCUMENTED[name]
    everywhere = {one.name for one in described.parameters} | {"access_token"}
    for pattern, operation in described.reads.items():
        known = everywhere | {one.name for one in operation.parameters}
        given = {one.name: _valid(one.name, one.schema, random.Random(0)) for one in operation.parameters}
        read = set[str]()
        for parameters in ({}, given):
            read |= _read_by(mirror, api, described, pattern, parameters)
        assert read <= known, (pattern, read - known)
        assert {one.name for one in operation.parameters} <= read, (pattern, given.keys() - read)


def _read_by(
    mirror: Served, api: Api, described: Description, pattern: Names, given: dict[str, str]
) -> set[str]:
    """Return the names of the parameters that a route looks for, whoever asks it."""
    read = set[str]()

    def remembering(datasette: Any, request: Request, asked: Any) -> Any:
        recorded = Recorded(asked.parameters, read)
        return api.request(datasette, request, msgspec.structs.replace(asked, parameters=recorded))

    watched = api._replace(request=remembering)
    for headers in mirror.callers.values():
        path = described.prefix + _good(template_of(pattern))
        request = _request(mirror.client, api, path, given, headers)
        asyncio.run(answer(watched, mirror.client.datasette, request))
    return read


def _request(
    client: AsgiClient, api: Api, path: str, query: dict[str, str], headers: dict[str, str]
) -> Request:
    """Make a request as it reaches the view of an API."""
    found = re.match(api.pattern, path)
    assert found is not None
    sent = {"host": "localhost", **{name.lower(): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(query).encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "url_route": {"kwargs": found.groupdict()},
        SERVED: served(client.datasette),
        MIRROR: next(iter(mirrors(client.datasette))),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    return Request(scope, receive)


def closed(schema: Any) -> Any:
    """Allow no key that a schema does not name, so that a new key must be described."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made["additionalProperties"] = False
    return made


class Judge:
    """Says whether answers fit a document."""

    def __init__(self, document: Any) -> None:
        self._responses = document["components"]["responses"]
        self._components = {"schemas": closed(document["components"]["schemas"])}
        self._validators = dict[str, Draft202012Validator]()

    def check(self, operation: Any, got: Any, asked: str) -> None:
        """Fail for an answer that is none of an operation's."""
        assert got.status_code != 500, asked
        responses = operation["responses"]
        said = responses.get(str(got.status_code), responses["default"])
        said = self._responses[said["$ref"].rpartition("/")[2]] if "$ref" in said else said
        content = said.get("content")
        if content is None:
            assert not got.content, asked
            return
        kind = got.headers["content-type"].partition(";")[0]
        assert kind in content or got.status_code != 200, (asked, kind)
        if kind == "application/json":
            errors = self._errors(content[kind]["schema"], got.json())
            assert not errors, (asked, got.status_code, errors[0].message, list(errors[0].absolute_path))

    def _errors(self, schema: Any, body: Any) -> list[Any]:
        key = repr(schema)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator({**closed(schema), "components": self._components})
        return list(self._validators[key].iter_errors(body))


ASKED_EACH = 6
"""How many times each route is asked by each caller."""

NEVER_ANSWERED = {"/users/{owner}/followers"}
"""Routes of which no upstream tells anything."""


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_fits_its_schema(mirror: Served, name: str) -> None:
    """Of every route, to every caller, with valid and hostile parameters; and each route answers somebody."""
    document, chance = mirror.documents[name], random.Random(7)
    judge, described = Judge(document), view.DOCUMENTED[name][1]
    answered = set[str]()
    for path, item in document["paths"].items():
        if "get" not in item:
            continue
        for caller, headers in mirror.callers.items():
            for turn in range(ASKED_EACH if caller != "revoked" else 1):
                address = described.prefix + _filled(path, item, chance, turn)
                query = dict(_queried(item["get"], chance, turn))
                asked = f"{caller}: {address}?{urlencode(query, errors='surrogatepass')}"
                got = mirror.client.get(asked.partition(": ")[2], headers=headers)
                judge.check(item["get"], got, asked)
                if got.status_code == 200:
                    answered.add(path)
    readable = {template_of(pattern) for pattern in described.reads}
    assert answered >= readable - NEVER_ANSWERED, readable - answered
    assert answered <= readable


def _filled(path: str, item: Any, chance: random.Random, turn: int) -> str:
    """Put names into a path: hostile ones at first, then those of something that is there, then others."""
    if turn == 1:
        return _good(path)
    for place in item.get("parameters", ()):
        known = HOSTILE if turn == 0 and chance.random() < 0.5 else KNOWN[place["name"]]
        value = quote(chance.choice(known), safe="/" if place["name"] == "more" else "", errors="replace")
        path = path.replace(f"{{{place['name']}}}", value or "x")
    return path


def _good(path: str) -> str:
    return ITEMS.get(path) or re.sub(r"\{(\w+)\}", lambda found: GOOD[found[1]], path)


def _queried(operation: Any, chance: random.Random, turn: int) -> Iterator[tuple[str, str]]:
    """Yield parameters: none at first, then valid ones, at last some hostile ones."""
    for one in operation.get("parameters", ()):
        if turn == 1:
            if one["required"]:
                yield one["name"], _valid(one["name"], one["schema"], chance)
        elif turn < 4 and chance.random() < 0.4:
            yield one["name"], _valid(one["name"], one["schema"], chance)
        elif turn >= 4 and chance.random() < 0.6:
            yield one["name"], chance.choice(HOSTILE)


def _valid(name: str, schema: Any, chance: random.Random) -> str:
    if "enum" in schema:
        return str(chance.choice(schema["enum"]))
    if schema.get("type") == "boolean":
        return chance.choice(("true", "false"))
    return chance.choice(VALID.get(name, ("a", "1", "piston")))


def test_a_document_names_the_address_that_is_published(mirror: Served) -> None:
    """The one that was asked, or that of `public_url` with its path, which the client of the tests adds."""
    assert [one["servers"] for one in mirror.documents.values()] == [
        [{"url": f"http://localhost{path}"}] for path in ("/1.0", "/2.0", "/rest/api/1.0")
    ]
    path = Path(next(iter(mirrors(mirror.client.datasette))).path)
    below = client_of(path, public_url="https://example.com/kept/here")
    document = below.json("/-/openapi/2.0.json")
    assert document["servers"] == [{"url": "https://example.com/kept/here/2.0"}]
    assert below.get("/-/openapi/3.0.json").status_code == 404


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
    """Also to one that is refused; the last ones delete the repository, and find it gone."""
    client, headers = writable
    document = client.json(f"/-/openapi/{name}.json")
    got = client(method.upper(), f"/{name}{_good(path)}", headers=headers, **sent)
    assert got.status_code in {200, 201, 204, 400, 404}
    Judge(document).check(document["paths"][path][method], got, path)


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A mirror that takes writes, and the headers of who may write."""
    filled = fill_mixed(tmp_path_factory.mktemp("written") / "mirror.db")
    headers = bearer(make_tokens(filled.store)["write"])
    return client_of(filled.path, writes=True, writer=FakeWriter(filled)), headers
