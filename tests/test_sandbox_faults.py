"""Each fault that the sandbox can have, as a real client sees it."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from live_server import WITHOUT_TLS

from mirror.sandbox import Fault, Sandbox, World, parse_fault, running
from mirror.sandbox.faults import KINDS

LISTING = "repositories/big?pagelen=10"


def asked(fault: Fault | str, *paths: str, patience: float = 30) -> list[Any]:
    """Request paths from a faulty sandbox; return a response for each, or the error of the client.

    `patience` is the time-out in seconds.
    """
    outcomes: list[Any] = []
    made = parse_fault(fault) if isinstance(fault, str) else fault
    with (
        running(Sandbox(World(100), faults=[made])) as sandbox,
        httpx.Client(verify=WITHOUT_TLS, base_url=sandbox.url, trust_env=False, timeout=patience) as client,
    ):
        for path in paths:
            try:
                outcomes.append(client.get(path))
            except httpx.HTTPError as error:
                outcomes.append(error)
    return outcomes


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 500, 502, 503, 504])
def test_a_status_fault_applies_once(status: int) -> None:
    """The first listing fails, the second does not."""
    first, second = asked(Fault(str(status), "listing"), LISTING, LISTING)
    assert (first.status_code, second.status_code) == (status, 200)


def test_retry_after_has_both_forms() -> None:
    """As seconds, and as a date."""
    (answer,) = asked("429,retry_after=7", LISTING)
    assert answer.headers["retry-after"] == "7"
    (answer,) = asked("503,retry_after=date:120", LISTING)
    assert 100 < parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time() < 130
    (answer,) = asked("429", LISTING)
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("spec", "statuses"),
    [
        ("500", [500, 200, 200, 200]),
        ("500,nth=2", [200, 500, 200, 200]),
        ("500,nth=2,times=2", [200, 500, 500, 200]),
        ("500,nth=every", [500, 500, 500, 500]),
        ("500,nth=every,times=3", [500, 500, 500, 200]),
        ("500,where=refs", [200, 200, 200, 200]),
        ("500,where=/2.0/repositories/b*", [500, 200, 200, 200]),
    ],
)
def test_nth_times_and_where_select_the_requests_that_fail(spec: str, statuses: list[int]) -> None:
    """Matching requests are counted from one."""
    assert [answer.status_code for answer in asked(spec, *[LISTING] * 4)] == statuses


def test_hangs_and_broken_connections() -> None:
    """A hang times out; drop, reset and truncate are protocol errors; the next request succeeds."""
    for spec, error in (
        ("hang", httpx.ReadTimeout),
        ("drop", httpx.RemoteProtocolError),
        ("reset", httpx.ReadError),
        ("truncate", httpx.RemoteProtocolError),
    ):
        first, second = asked(spec, LISTING, LISTING, patience=2 if spec == "hang" else 30)
        assert isinstance(first, error), spec
        assert second.status_code == 200


def test_slow_responses_are_complete() -> None:
    """`slow` waits, `drip` sends a few bytes at a time."""
    for spec in ("slow,seconds=0.2", "drip,seconds=0.2"):
        started = time.perf_counter()
        (answer,) = asked(spec, LISTING)
        assert time.perf_counter() - started > 0.15
        assert len(answer.json()["values"]) == 10


def test_wrong_bodies_are_sent_as_configured() -> None:
    """Web pages, broken JSON, wrong shapes, empty lists and a bad row, all with status 200."""
    (page,) = asked("html", LISTING)
    assert page.headers["content-type"].startswith("text/html")
    (page,) = asked("invalid_json", LISTING)
    with pytest.raises(ValueError):
        page.json()
    (page,) = asked("nonsense", LISTING)
    assert not isinstance(page.json()["values"], list)
    (page,) = asked("empty", LISTING)
    assert (page.json()["values"], "next" in page.json()) == ([], False)
    (page,) = asked("bad_row", LISTING)
    assert [row["uuid"] is None for row in page.json()["values"]].count(True) == 1
    (row,) = asked("bad_row", "repositories/jespern/django-piston")
    assert row.json()["uuid"] is None
    (page,) = asked("gzip_bomb", LISTING)
    assert len(page.content) == 64 << 20
    assert int(page.headers["content-length"]) < 1 << 20


def test_wrong_links_are_sent_as_configured() -> None:
    """A redirect and a next link to other hosts, and a next link to the same page."""
    (page,) = asked("redirect", LISTING)
    assert (page.status_code, page.headers["location"]) == (302, "http://redirected.invalid/")
    (page,) = asked("foreign_next", LISTING)
    assert "elsewhere.invalid" in page.json()["next"]
    (page,) = asked("loop_next", LISTING)
    assert page.json()["next"] == str(page.url)


def test_page_500_stays_500_but_can_be_skipped() -> None:
    """Only fields=next skips it. Other pages succeed."""
    second = f"{LISTING}&page=2"
    answers = asked(
        "page_500,where=listing,nth=2", LISTING, second, second, f"{second}&fields=next", second, LISTING
    )
    assert [answer.status_code for answer in answers] == [200, 500, 500, 200, 500, 200]
    assert list(answers[3].json()) == ["next"]


def test_control_sets_and_clears_faults() -> None:
    """The state shows how often they fired."""
    with (
        running(Sandbox(World(20))) as sandbox,
        httpx.Client(verify=WITHOUT_TLS, base_url=sandbox.url, trust_env=False) as client,
    ):
        control = f"{sandbox.origin}/-/sandbox"
        fault = {"action": "fault", "what": "500", "where": "listing", "nth": "every"}
        assert client.post(control, json=fault).json()["faults"][0]["fired"] == 0
        assert client.get("repositories/erik").status_code == 500
        assert client.get(control).json()["faults"][0]["fired"] == 1
        client.post(control, json={"action": "clear_faults"})
        assert client.get("repositories/erik").status_code == 200


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", "neither a status"),
        ("200", "neither a status"),
        ("explode", "neither a status"),
        ("500,refs", "not NAME=VALUE"),
        ("500,when=2", "has no when"),
        ("500,nth=0", "count from 1"),
        ("500,nth=x", "bad fault"),
        ("429,retry_after=soon", "bad fault"),
    ],
)
def test_an_invalid_fault_is_explained(spec: str, problem: str) -> None:
    """The message names the part that is wrong."""
    with pytest.raises(ValueError, match=problem):
        parse_fault(spec)


def test_every_kind_of_fault_is_documented() -> None:
    """docs/sandbox.md has a line for each."""
    from pathlib import Path

    text = (Path(__file__).parent.parent / "docs" / "sandbox.md").read_text()
    assert not [kind for kind in KINDS if f"`{kind}`" not in text]
