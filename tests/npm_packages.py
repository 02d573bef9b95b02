"""Packages of npm that tests run. They are installed once, by a lock file (`tests/npm`), beside Python's."""

from pathlib import Path

import pytest

MODULES = Path(__file__).parent.parent / ".venv/npm/node_modules"


def npm_file(name: str) -> Path:
    """Return a file or a folder of a package; skips the test where it is not installed."""
    if not (MODULES / name).exists():
        pytest.skip(f"{name} is not installed: make .venv/installed-npm, which needs npm and its registry")
    return MODULES / name


def node_folder(folder: Path, package: str) -> Path:
    """Let scripts in a folder import a package, and those beside it; skips the test as above."""
    npm_file(package)
    (folder / "node_modules").symlink_to(MODULES)
    return folder
