"""The OpenAPI documents are valid and describe every route, with every parameter that it reads."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import msgspec
import pytest
from asgi_client import AsgiClient, client_of
from datasette.utils.asgi import Request
from openapi_world import NAMES, Served, good, served_mirror, valid

from mirror.serve.api_edge import Api
from mirror.serve.exchange import MIRROR, SERVED
from mirror.serve.guarded_database import mirrors
from mirror.serve.openapi.document import Description, documented, summary_of, template_of
from mirror.serve.state import served


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Made once: nothing writes to it."""
    return served_mirror(tmp_path_factory.mktemp("openapi"))


@pytest.fixture(scope="module")
def documents(mirror: Served) -> dict[str, Any]:
    """All documents, as they are served."""
    return mirror.documents


class Recorded(dict[str, str]):
    """Parameters that record in `read` which of them were read."""

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
    from openapi_spec_validator import OpenAPIV31SpecValidator  # slow to import

    schema = OpenAPIV31SpecValidator.schema_validator
    # Its anchors are looked for once, not for each of hundreds of references to them.
    resolver = attrs.evolve(schema._resolver, registry=schema._resolver._registry.crawl())

    class Validator(OpenAPIV31SpecValidator):
        schema_validator = schema.evolve(_resolver=resolver)

    Validator(documents[name]).validate()


@pytest.mark.parametrize(("api", "described"), documented().values(), ids=NAMES)
def test_every_route_is_described(api: Api, described: Description) -> None:
    """A new route fails here until its parameters and responses are described."""
    assert set(described.reads) == set(api.readers)
    written = {(pattern, method) for pattern, methods in api.writers.items() for method in methods}
    assert set(described.writes) == written
    handlers: list[Any] = [*api.readers.values()]
    for handler in handlers + [one for ways in api.writers.values() for one in ways.values()]:
        assert re.match(r"(GET|POST|PUT|DELETE) ", summary_of(handler)), handler
    for operation in described.reads.values():
        assert operation.answer is not None


@pytest.mark.parametrize(("api", "described"), documented().values(), ids=NAMES)
def test_unmirrored_resources_are_described(api: Api, described: Description) -> None:
    """Each address on the list is refused, and no other one is."""
    assert described.unmirrored
    for pattern in described.unmirrored:
        assert api.unmirrored(pattern) is not None, pattern
        assert pattern not in api.readers


def test_every_path_is_served(documents: dict[str, Any]) -> None:
    """The paths of a document are those of the tables, written with braces."""
    for name, (api, described) in documented().items():
        patterns = {*api.readers, *api.writers, *described.unmirrored}
        assert set(documents[name]["paths"]) == {template_of(pattern) for pattern in patterns}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_that_a_route_reads_is_described(mirror: Served, name: str) -> None:
    """Each route is called with and without its parameters, and records those that it reads."""
    api, described = documented()[name]
    everywhere = {one.name for one in described.parameters} | {"access_token"}
    for pattern, operation in described.reads.items():
        known = everywhere | {one.name for one in operation.parameters}
        given = {one.name: valid(one.name, one.schema)[0] for one in operation.parameters}
        read = set[str]()
        for parameters in ({}, given):
            read |= _read_by(mirror, api, described, pattern, parameters)
        assert read <= known, (pattern, read - known)
        assert {one.name for one in operation.parameters} <= read, (pattern, given.keys() - read)


def _read_by(
    mirror: Served, api: Api, described: Description, pattern: tuple[str, ...], given: dict[str, str]
) -> set[str]:
    """Return the names of the parameters that a route reads, for any caller."""
    read = set[str]()

    def remembering(datasette: Any, request: Request, asked: Any) -> Any:
        recorded = Recorded(asked.parameters, read)
        return api.request(datasette, request, msgspec.structs.replace(asked, parameters=recorded))

    watched = api._replace(request=remembering)
    for headers in mirror.callers.values():
        path = described.prefix + good(template_of(pattern))
        request = _request(mirror.client, api, path, given, headers)
        asyncio.run(watched.view(mirror.client.datasette, request))
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


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_asked_for_the_past_says_so(mirror: Served, name: str) -> None:
    """Each address that has a past is described with its headers, and no other one."""
    api, described = documented()[name]
    headers = {"Accept-Datetime": "Tue, 03 Nov 2026 10:00:00 GMT", **mirror.callers["token"]}
    for pattern, reader in api.readers.items():
        path = template_of(pattern)
        operation = mirror.documents[name]["paths"][path]["get"]
        got = mirror.client.get(f"{described.prefix}{good(path)}?name=a", headers=headers)
        is_dated = "Accept-Datetime" in {one["name"] for one in operation.get("parameters", ())}
        assert is_dated == (reader in api.dated) == ("Memento-Datetime" in got.headers), (path, got.text)
        told = operation["responses"]["200"].get("headers", {})
        assert bool(told) == is_dated
        if is_dated:
            assert told.keys() == {"Memento-Datetime", "X-Mirror-Next-Look", "Vary", "Link"}
            assert "Accept-Datetime" in got.headers["Vary"]
            assert 'rel="original timegate"' in got.headers["Link"]
    docs = Path(__file__).parent.parent / "docs"
    text = (docs / f"api-{name}.md").read_text()
    assert "Accept-Datetime" in text
    assert "(history.md#in-the-apis)" in text
    text = (docs / "history.md").read_text()
    for header in ("Accept-Datetime", "Memento-Datetime", "X-Mirror-Next-Look", "Vary", 'rel="original'):
        assert header in text


def test_a_document_names_the_address_that_is_published(mirror: Served) -> None:
    """The requested host, or `public_url` with its path, which the test client adds."""
    assert [one["servers"] for one in mirror.documents.values()] == [
        [{"url": f"http://localhost{path}"}] for path in ("/1.0", "/2.0", "/rest/api/1.0")
    ]
    path = Path(next(iter(mirrors(mirror.client.datasette))).path)
    below = client_of(path, public_url="https://example.com/kept/here")
    document = below.json("/-/openapi/2.0.json")
    assert document["servers"] == [{"url": "https://example.com/kept/here/2.0"}]
    assert below.get("/-/openapi/3.0.json").status_code == 404
