"""docs/api-2.0.md is held to the routes, to the fields that can be asked about, and to the tests."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.queries.visibility import ANONYMOUS
from mirror.serve.api2 import listings
from mirror.serve.api2.routes import READERS
from mirror.serve.api2.writes import WRITERS

if TYPE_CHECKING:
    from mirror.serve.api2.paging import Listing

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "api-2.0.md").read_text("utf-8")
ROWS = [line.split(" | ") for line in TEXT.splitlines() if re.match(r"\| (GET|POST|PUT|DELETE) `", line)]


def _path(pattern: tuple[str, ...]) -> str:
    users = pattern[0] in ("users", "teams") or "members" in pattern
    names = {
        "<workspace>": "U" if pattern[0] in ("users", "teams") else "W",
        "<repository>": "S",
        "<name>": "U" if users else "NAME",
    }
    return "/".join(names.get(part, part) for part in pattern)


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    """A route that is added is documented, one that is dropped leaves the table."""
    documented = {(row[0].strip("| ").split(" ")[0], row[0].split("`")[1]) for row in ROWS}
    written = {(method, _path(pattern)) for pattern, methods in WRITERS.items() for method in methods}
    assert documented == {("GET", _path(pattern)) for pattern in READERS} | written


def test_every_row_names_a_test_that_exists() -> None:
    """The last column can be searched for."""
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_api2*.py"))
    for row in ROWS:
        assert f"def {row[-1].strip('| `')}(" in tests, row[0]


def test_every_field_is_listed() -> None:
    """And none that cannot be asked about."""
    lists: dict[str, Listing] = {
        "repositories": listings.repositories(ANONYMOUS),
        "refs": listings.refs(1, "branch", "tag"),
        "workspaces": listings.workspaces(ANONYMOUS),
        "members": listings.members(ANONYMOUS, 1),
        "user/workspaces": listings.own_workspaces(ANONYMOUS),
        "user/permissions/repositories": listings.own_repositories(ANONYMOUS),
    }
    for name, listing in lists.items():
        (line,) = re.findall(rf"^\| {name} \| (.*) \|$", TEXT, re.MULTILINE)
        assert set(re.findall(r"`([\w.]+)`", line)) == set(listing.fields), name
    assert set(listings.watchers(ANONYMOUS, 1).fields) == {
        field.removeprefix("user.") for field in lists["members"].fields if field != "permission"
    }
