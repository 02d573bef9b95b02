"""Heads of requests are limited before anything reads them, and what one address may make a page do."""

import logging
from urllib.parse import quote

import pytest
from asgi_client import AsgiClient, client_of
from fixtures_db import fill_public

from mirror.serve.guarded_database import MOST_FACETS
from mirror.serve.heads import LONGEST_ADDRESS, LONGEST_FIELDS, MOST_ESCAPES, MOST_PARAMETERS

TABLE, API = "/mirror/repositories.json", "/2.0/repositories/jespern"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> AsgiClient:
    """A mirror that anybody may read."""
    path = tmp_path_factory.mktemp("served") / "mirror.db"
    fill_public(path).store.close()
    return client_of(path)


@pytest.mark.parametrize("path", ["/", TABLE, API, "/-/health"])
def test_large_heads_are_refused(served: AsgiClient, path: str) -> None:
    """Addresses and header fields at every address, cookies that Python would read for minutes."""
    assert served.get(f"{path}?a={'b' * LONGEST_ADDRESS}").status_code == 414
    assert served.get(path, headers={"X-Field": "x" * LONGEST_FIELDS}).status_code == 431
    for escapes, status in ((MOST_ESCAPES, 200), (MOST_ESCAPES + 1, 431)):
        answer = served.get(path, headers={"Cookie": 'a="' + "\\" * escapes + '"'})
        assert answer.status_code == status


def test_many_parameters_are_refused(served: AsgiClient) -> None:
    """Datasette makes a link without each of them. APIs and own pages read a bounded number."""
    most = "&".join(["_where=1"] * MOST_PARAMETERS)
    assert served.get(f"{TABLE}?{most}").status_code == 200
    refused = served.get(f"{TABLE}?{most}&_where=1")
    assert refused.status_code == 400
    assert f"more than {MOST_PARAMETERS} parameters" in refused.json()["error"]
    assert served.get(f"{API}?{most}&_where=1").status_code == 200


def test_a_page_has_a_bounded_number_of_facets(served: AsgiClient) -> None:
    """Each may take a second: those that are too many have no values."""
    found = served.json(f"{TABLE}?{'&'.join(['_facet=scm'] * (MOST_FACETS + 9))}")
    assert len(found["facet_results"]) == MOST_FACETS


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", f"{TABLE}?id__in=[[1]]", {}),
        ("GET", f"{TABLE}?_where=1{'%20' * 17_000}", {}),
        ("GET", f"/-/allow-debug?allow={quote('[' * 12_000)}", {}),
        ("POST", "/-/messages", {"message": "a", "message_type": "9"}),
    ],
)
def test_what_datasette_cannot_read_is_400(
    served: AsgiClient, caplog: pytest.LogCaptureFixture, method: str, path: str, sent: dict[str, str]
) -> None:
    """And fills no log with tracebacks."""
    with caplog.at_level(logging.ERROR):
        assert served(method, path, data=sent or None).status_code == 400
    assert not caplog.records
