"""The tables of faults and of attacks name tests that exist."""

import re
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
TABLE = (DOCS / "reliability.md").read_text("utf-8")
ATTACKS = (DOCS / "security.md").read_text("utf-8").partition("## Attacks")[2]


def test_every_test_that_the_table_names_exists() -> None:
    """Each row of docs/reliability.md and docs/security.md points at a test function of its module."""
    named = re.findall(r"`(test_\w+)::(test_\w+)`", TABLE + ATTACKS)
    assert len(named) > 35
    missing = [
        f"{module}::{name}"
        for module, name in named
        if f"def {name}(" not in (HERE / f"{module}.py").read_text("utf-8")
    ]
    assert missing == []


def test_every_row_names_a_test() -> None:
    """No fault and no attack is listed without a test that shows what happens."""
    rows = [line for line in (TABLE + ATTACKS).splitlines() if line.startswith("| ") and "---" not in line]
    faults = [row for row in rows if not row.endswith("| test |")]
    assert [row for row in faults if "`test_" not in row] == []
