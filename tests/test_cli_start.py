"""What commands load: those that one waits for start without what they do not use."""

import subprocess
import sys

import pytest
from cli_runner import Folder
from fixtures_db import FixtureDb, owner, repository

SLOW = ("apscheduler", "datasette", "httpx", "numpy", "rapidfuzz", "sqlite_utils", "tenacity")
"""Packages that take longer to import than most commands take."""
LOADED = """import sys
from mirror.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(*{name.partition(".")[0] for name in sys.modules}, len(sys.modules), sep=chr(10), file=sys.stderr)"""
MOST = 300
"""Modules, with those of the standard library; 240 to 260 were measured."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a small mirror."""
    folder = Folder(tmp_path_factory.mktemp("filled"))
    (folder.path / "data").mkdir()
    database = FixtureDb(folder.path / "data/mirror.db")
    database.repositories([repository("ann/tool", owner("ann"))], first=True)
    database.store.close()
    return folder


@pytest.mark.parametrize("command", ["search tool", "show ann/tool", "show ann/tool --json", "changes"])
def test_reading_commands_load_little(filled: Folder, command: str) -> None:
    """Neither the crawler nor the server, nor what only writers and corrections of typing errors need."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command.split()],
        cwd=filled.path,
        env=filled.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *packages, number = done.stderr.splitlines()
    assert not set(packages) & set(SLOW)
    assert int(number) <= MOST
