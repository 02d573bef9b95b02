"""JSON in README.md and docs/ without its command has the keys that the program prints now."""

import contextlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, client_of
from click.testing import CliRunner
from doc_examples import DOCS, differences, json_blocks, parsed
from fixtures_db import FixtureDb, hg_ref, repository
from prepared_files import copy_made

from mirror.cli.main import mirror

OF_REQUESTS = ("mcp.md", "sandbox.md", "serving.md")
"""Files whose blocks of JSON are what a reader writes: settings, and requests to the sandbox."""
ASKED = {"api-2.0.md": "/2.0/repositories/jespern/django-piston/pullrequests", "keeping.md": "/-/health"}
"""Where answers come from that are shown without their request."""


def _samples() -> list[tuple[str, str, str]]:
    """Return (file, request, JSON) of every sample, found by how docs write them."""
    found = []
    for path in DOCS:
        text, name = path.read_text("utf-8"), path.name
        found += [
            (name, command, shown)
            for command, shown in re.findall(r"`(mirror [^`]*--json)` prints\s+`(\{[^`]*)`", text)
        ]
        if name not in OF_REQUESTS:
            found += [(name, ASKED[name], block) for block in json_blocks(path)]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the mirror that the samples are about."""
    place = tmp_path_factory.mktemp("samples")
    copy_made(place / "data" / "mirror.db", _fill)
    return place


def _fill(path: Path) -> None:
    filled = FixtureDb(path)
    filled.repositories([repository("jespern/django-piston"), repository("dchambers/django-piston")])
    refs = [hg_ref("branch", "default", "a"), hg_ref("tag", "0.2.1", "b"), hg_ref("tag", "QUERY", "b")]
    filled.refs("jespern/django-piston", refs)
    filled.store.finish_search_index()
    filled.store.close()


@pytest.fixture(scope="module")
def served(folder: Path) -> AsgiClient:
    """It, served as a copy, which shows the most in its health."""
    return client_of(folder / "data" / "mirror.db", read_only=True)


@pytest.mark.parametrize(("file", "asked", "shown"), _samples(), ids=[file for file, *_ in _samples()])
def test_json_that_is_shown_has_the_keys_that_are_printed(
    folder: Path, served: AsgiClient, file: str, asked: str, shown: str
) -> None:
    """On every level; a partial sample has a subset of them."""
    if asked.startswith("mirror "):
        with contextlib.chdir(folder):
            printed = json.loads(CliRunner().invoke(mirror, shlex.split(asked)[1:]).output)
    else:
        address = shlex.split(asked)[-1].removeprefix("http://127.0.0.1:8001")
        printed = served.get(address).json()
    told, whole = parsed(shown)
    if asked == "/-/health":
        printed = {key: value for key, value in printed.items() if key in told}
    assert differences(told, printed, whole=whole) == [], (file, asked)


def test_the_samples_are_found() -> None:
    """At least one for each way to write them; JSON that is no response is listed."""
    assert {file for file, _, _ in _samples()} >= {"api-2.0.md", "refs.md", "keeping.md"}


@pytest.mark.parametrize(
    ("shown", "printed", "found"),
    [
        ('{"a": 1, "b": [{"c": 2}]}', {"a": 3, "b": [{"c": 4}]}, []),
        ('{"a": 1}', {"a": 3, "b": 4}, [".b"]),
        ('{"a":{"b":"…",…', {"a": {"b": 1, "c": 2}, "d": 3}, []),
        ('{"a":{"b":"…",…', {"a": {"c": 2}}, [".a.b"]),
        ('{"a", "b": [{"c",\n"d"}]}', {"a": 1, "b": [{"c": 2, "e": 3}]}, [".b[].d", ".b[].e"]),
    ],
)
def test_differences_of_keys_are_seen(shown: str, printed: Any, found: list[str]) -> None:
    """Whole and in part, with values and without, at every level."""
    told, whole = parsed(shown)
    assert differences(told, printed, whole=whole) == found
