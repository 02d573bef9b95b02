"""docs/development.md names files and functions that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs/development.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?::(\w+))?`", TEXT)))


def names_in(path: Path) -> set[str]:
    """Return the names that a file defines at its top."""
    found = set[str]()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_named_file_and_function_exists(file: str, name: str) -> None:
    """As a file of the program or of the tests, with the function, class or table named behind it."""
    places = [folder / file for folder in (ROOT / "mirror", ROOT / "tests", ROOT)]
    path = next((place for place in places if place.exists()), None)
    assert path is not None
    assert not name or name in names_in(path)


def test_every_part_is_described() -> None:
    """The table of parts names each folder of the program."""
    for folder in (ROOT / "mirror").iterdir():
        if (folder / "__init__.py").exists():
            assert f"| `{folder.name}/` |" in TEXT
