"""docs/api-datacenter.md is held to the routes and to the tests."""

import re
from pathlib import Path

from mirror.serve.datacenter.routes import READERS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "api-datacenter.md").read_text("utf-8")
ROWS = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| GET `")]
NAMES = {"<project>": "K", "<repository>": "S", "<name>": "NAME", "<user>": "U"}


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    """A route that is added is documented, one that is dropped leaves the table."""
    documented = {row[0].split("`")[1] for row in ROWS}
    assert documented == {"/".join(NAMES.get(part, part) for part in pattern) for pattern in READERS}


def test_every_row_names_a_test_that_exists() -> None:
    """The last column can be searched for."""
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_datacenter*.py"))
    for row in ROWS:
        assert f"def {row[-1].strip('| `')}(" in tests, row[0]


def test_every_parameter_is_explained() -> None:
    """Those that the addresses name."""
    named = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[1]) if name != "mirrorVersion"}
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| (`.*?) \|", TEXT))))
    assert named <= explained | {"start", "limit"}
