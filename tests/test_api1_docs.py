"""The table of API 1.0's addresses is held to the routes and to the tests."""

import re
from pathlib import Path

import pytest
from asgi_client import client_of

from mirror.serve.api1.routes import READERS, WRITERS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "api-1.0.md").read_text("utf-8")
ROWS = [line.split(" | ") for line in TEXT.splitlines() if re.match(r"\| (GET|POST|PUT|DELETE) `", line)]


def _documented() -> set[tuple[str, str]]:
    return {(row[0].strip("| ").split(" ")[0], row[0].split("`")[1].partition("?")[0]) for row in ROWS}


def _served() -> set[tuple[str, str]]:
    names = {"<owner>": "U", "<slug>": "S"}

    def path(pattern: tuple[str, ...]) -> str:
        return "/".join(names.get(part, part) for part in pattern)

    reads = {("GET", path(pattern)) for pattern in READERS}
    return reads | {(method, path(pattern)) for pattern, methods in WRITERS.items() for method in methods}


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    """A route that is added is documented, one that is dropped leaves the table."""
    assert _documented() == _served()


def test_every_row_names_a_test_that_exists() -> None:
    """A reader can search for the names in the last column."""
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_api1*.py"))
    for row in ROWS:
        assert f"def {row[-1].strip('| `')}(" in tests, row[0]


@pytest.mark.parametrize("example", sorted(set(re.findall(r"`(/1\.0/[^`…]+)`", TEXT))))
def test_the_examples_answer(example: str, public_path: Path) -> None:
    """The examples on the page work; those with placeholders are not run."""
    if "/U" in example:
        pytest.skip("a placeholder")
    assert client_of(public_path).get(example).status_code == 200
