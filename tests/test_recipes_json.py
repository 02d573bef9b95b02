"""JSON that README.md and docs/ show as an answer has the keys that the program prints now."""

import contextlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, client_of
from click.testing import CliRunner
from fixtures_db import FixtureDb, hg_ref, repository
from prepared_files import copy_made

from mirror.cli.main import mirror

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "contrib" / "README.md"]
OF_REQUESTS = ("mcp.md", "sandbox.md", "serving.md")
"""Files whose blocks of JSON are what a reader writes: settings, and requests to the sandbox."""
ASKED = {"api-2.0.md": "/2.0/repositories/jespern/django-piston/pullrequests", "keeping.md": "/-/health"}
"""Where answers come from that are shown without their request."""


def _samples() -> list[tuple[str, str, str]]:
    """Return (file, what is asked, the JSON shown) of every answer; found by how docs write them."""
    found = []
    for path in DOCS:
        text, name = path.read_text("utf-8"), path.name
        found += [
            (name, *pair) for pair in re.findall(r"^\$ ((?:curl|mirror) .*)\n(\{.*)$", text, re.MULTILINE)
        ]
        found += [
            (name, command, shown)
            for command, shown in re.findall(r"`(mirror [^`]*--json)` prints\s+`(\{[^`]*)`", text)
        ]
        blocks = re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        blocks += [f"{{{line}}}" for line in re.findall(r'^    ("\w+": \{.*\})$', text, re.MULTILINE)]
        found += [(name, ASKED[name], block) for block in blocks if name not in OF_REQUESTS]
    return found


def _parsed(shown: str) -> tuple[Any, bool]:
    """Return the JSON that is shown, and whether all of it is: `…` at its end stands for the rest.

    A key alone, `{"a", "b"}`, is one whose value is left out.
    """
    whole = not shown.rstrip().endswith("…")
    text = shown.rstrip().rstrip(",…")
    if '":' not in text.partition(",")[0]:
        text = re.sub(r'("\w+")(?=\s*[,}])', r"\1: null", text)
    opened = list[str]()
    for sign in re.sub(r'"[^"]*"', "", text):
        if sign in "{[":
            opened.append("}" if sign == "{" else "]")
        elif sign in "}]":
            opened.pop()
    return json.loads(text + "".join(reversed(opened))), whole


def _differences(shown: Any, printed: Any, whole: bool, place: str = "") -> list[str]:
    """Return the keys that only one of the two has; a value that is left out is not compared."""
    if isinstance(shown, list) and isinstance(printed, list):
        return _differences(shown[0], printed[0], whole, f"{place}[]") if shown and printed else []
    if not (isinstance(shown, dict) and isinstance(printed, dict)):
        return []
    only = set(shown) - set(printed) | (set(printed) - set(shown) if whole else set())
    return [f"{place}.{key}" for key in sorted(only)] + [
        difference
        for key in shown.keys() & printed.keys()
        for difference in _differences(shown[key], printed[key], whole, f"{place}.{key}")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mirror that has what the samples are about."""
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
    """It, served as a copy, which has the most to tell about its health."""
    return client_of(folder / "data" / "mirror.db", read_only=True)


@pytest.mark.parametrize(("file", "asked", "shown"), _samples(), ids=[file for file, *_ in _samples()])
def test_json_that_is_shown_has_the_keys_that_are_printed(
    folder: Path, served: AsgiClient, file: str, asked: str, shown: str
) -> None:
    """Those of every level; of an answer that is shown in part, at least these."""
    if asked.startswith("mirror "):
        with contextlib.chdir(folder):
            printed = json.loads(CliRunner().invoke(mirror, shlex.split(asked)[1:]).output)
    else:
        address = shlex.split(asked)[-1].removeprefix("http://127.0.0.1:8001")
        printed = served.get(address).json()
    parsed, whole = _parsed(shown)
    if asked == "/-/health":
        printed = {key: value for key, value in printed.items() if key in parsed}
    assert _differences(parsed, printed, whole) == [], (file, asked)


def test_the_samples_are_found() -> None:
    """One of each way to write them; those that are not answers are named."""
    assert {file for file, _, _ in _samples()} >= {
        "api-1.0.md",
        "api-2.0.md",
        "api-datacenter.md",
        "refs.md",
        "keeping.md",
    }


@pytest.mark.parametrize(
    ("shown", "printed", "differences"),
    [
        ('{"a": 1, "b": [{"c": 2}]}', {"a": 3, "b": [{"c": 4}]}, []),
        ('{"a": 1}', {"a": 3, "b": 4}, [".b"]),
        ('{"a":{"b":"…",…', {"a": {"b": 1, "c": 2}, "d": 3}, []),
        ('{"a":{"b":"…",…', {"a": {"c": 2}}, [".a.b"]),
        ('{"a", "b": [{"c",\n"d"}]}', {"a": 1, "b": [{"c": 2, "e": 3}]}, [".b[].d", ".b[].e"]),
    ],
)
def test_differences_of_keys_are_seen(shown: str, printed: Any, differences: list[str]) -> None:
    """Whole and in part, with values and without, at every level."""
    parsed, whole = _parsed(shown)
    assert _differences(parsed, printed, whole) == differences
