"""Reading the file needs neither Datasette nor an upstream, and few modules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_db import fill_public

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"datasette", "uvicorn", "jinja2"}
MOST = 800
"""Modules, those of Python and of other packages too."""

COMMANDS = (["search", "django"], ["show", "jespern/django-piston"], ["changes"], ["status"])

LOADED = """
import json, sys
{work}
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(work: str, folder: Path) -> list[str]:
    """Run Python code in a folder, and return the names of all modules that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(work=work)],
        cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return names


@pytest.mark.parametrize("package", ["queries", "search"])
def test_reading_modules_import_no_server(package: str, tmp_path: Path) -> None:
    """Each module of the package, and whatever it imports."""
    modules = [f"mirror.{package}.{path.stem}" for path in sorted((ROOT / "mirror" / package).glob("*.py"))]
    found = loaded("\n".join(f"import {name.removesuffix('.__init__')}" for name in modules), tmp_path)
    assert not {name.split(".")[0] for name in found} & {*FORBIDDEN, "httpx"}
    assert len(found) < MOST * 0.6


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_reading_commands_import_no_server(command: list[str], tmp_path: Path) -> None:
    """So that they start fast."""
    fill_public(tmp_path / "mirror.db").store.close()
    (tmp_path / "mirror.toml").write_text('database = "mirror.db"')
    found = loaded(f"from mirror.cli.main import mirror; mirror({command}, standalone_mode=False)", tmp_path)
    assert not {name.split(".")[0] for name in found} & FORBIDDEN
    assert len(found) < MOST
