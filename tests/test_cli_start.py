"""What commands import: commands that people wait for load nothing that they do not use."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest
from cli_runner import Folder, small_sandbox

from mirror.cli.main import FILES

SLOW = {
    "apscheduler",
    "asyncio",
    "datasette",
    "datasette.vendored.pint.registry",
    "http.client",
    "httpx",
    "logging",
    "mirror.sandbox",
    "mirror.store.database",
    "mcp",
    "numpy",
    "rapidfuzz",
    "pyarrow",
    "rich",
    "rich.progress",
    "sqlite_utils",
    "tenacity",
    "zoneinfo",
}
"""Modules that are slow to import, alone or by what they import."""

WRITES = {"mirror.store.database"}
ASKS = WRITES | {"http.client", "httpx", "logging"}
KEEPS_TIME = {"apscheduler", "asyncio", "logging", "zoneinfo"}
SERVES = ASKS | KEEPS_TIME | {"datasette", "rich", "rich.progress"}


class Loads(NamedTuple):
    """Which of the slow modules a command may load, and how many modules of all kinds at most."""

    slow: set[str]
    most: int


READS = Loads(set(), 154)  # 119 to 151 were measured, click's 17 among them; Python 3.13 loads up to 3 more
TELLS_TIME = Loads({"zoneinfo"}, 155)
SYNCS = Loads(ASKS, 314)
SERVERS = Loads(SERVES - {"apscheduler"}, 702)

COMMANDS = {
    "search NAME": READS,
    "search NAME --json": Loads(set(), 138),  # without the past and refs
    "--help": Loads(set(), 110),  # no file of a command
    "refs NAME": READS,
    "show OWNER/NAME": READS,
    "show OWNER/NAME --json": READS,
    "changes": READS,
    "status": TELLS_TIME,
    "status --json": TELLS_TIME,
    "token list": Loads(WRITES, 155),
    "sync": SYNCS,
    "init --help": READS,
    "check --help": Loads(ASKS | KEEPS_TIME, 158),
    "serve --help": SERVERS,
    "run --help": SERVERS,
    "publish --help": READS,
    "export --help": READS,
    "backup --help": Loads(WRITES, 178),
    "inventory --help": READS,
    "mcp --help": READS,
    "site --help": READS,
    "man --help": READS,
    "repo --help": SYNCS,
    "sandbox --help": Loads({"asyncio", "logging", "mirror.sandbox", "zoneinfo"}, 198),
}
"""What commands load that end by themselves (the sync finds nothing new), and the files of the others."""

LOADED = """import os, sys
started = {*sys.modules}
from mirror.cli.main import main
for line in sys.stdin:
    if os.fork():
        assert os.wait()[1] == 0, line
        print(flush=True)
        continue
    try:
        main(line.split())
    except SystemExit as ended:
        assert not ended.code, ended.code
    public = [name for name in sys.modules if name not in started and not name.startswith("_")]
    print("loaded:", *public, end="", flush=True)
    os._exit(0)"""
"""Forks for each line that it reads: it has imported no more than what every command imports first.

What Python starts with is not counted, nor what it keeps to itself: these differ from version to version.
"""
MARK = "loaded: "


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A folder with a small mirror of an upstream that answers."""
    folder = Folder(tmp_path_factory.mktemp("filled"))
    with small_sandbox(10) as box:
        folder.configure(box.origin + "/2.0")
        assert folder.run("sync").code == 0
        yield folder


@pytest.fixture(scope="module")
def fresh(filled: Folder) -> Iterator[subprocess.Popen[str]]:
    """A Python that has just started."""
    with subprocess.Popen(
        [sys.executable, "-c", LOADED],
        cwd=filled.path,
        env=filled.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_little(filled: Folder, fresh: subprocess.Popen[str], command: str) -> None:
    """Neither the crawler nor the server, unless it crawls or serves; no packages of other commands."""
    with closing(sqlite3.connect(filled.path / "data/mirror.db")) as connection:
        owner, name = connection.execute("SELECT full_name FROM repositories").fetchone()[0].split("/")
    assert fresh.stdin
    assert fresh.stdout
    print(command.replace("OWNER", owner).replace("NAME", name), file=fresh.stdin, flush=True)
    said = next(line for line in fresh.stdout if MARK in line)
    loaded = said.partition(MARK)[2].split()
    assert not SLOW.intersection(loaded) - COMMANDS[command].slow
    assert len(loaded) <= COMMANDS[command].most


def test_every_file_of_commands_is_counted() -> None:
    """A new file must say what it loads."""
    assert {FILES[command.split()[0]] for command in COMMANDS if command != "--help"} == set(FILES.values())


_SIGNALLED = """
import os, sys
_, module, number, *words = sys.argv
class Signalling:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Signalling())
import mirror.cli
sys.argv[1:] = words
mirror.cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "words", "code", "says"),
    [
        ("mirror.cli.main", "search x", 130, ""),
        ("mirror.cli.search", "search x", 130, "mirror: interrupted; what was saved is kept"),
        ("mirror.cli.serve", "run", 0, ""),
    ],
)
def test_a_signal_while_modules_are_imported_shows_no_traceback(
    number: signal.Signals, module: str, words: str, code: int, says: str, filled: Folder
) -> None:
    """It is an interruption; a service, which was asked to stop, ends as later."""
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALLED, module, str(int(number)), *words.split()],
        cwd=filled.path,
        env=filled.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (code, "", says)


def test_importing_the_commands_leaves_signals_as_they_were() -> None:
    """A program that calls `main` with arguments handles its own."""
    code = (
        "import mirror.cli; from signal import *; mirror.cli.main(['--version'])\n"
        "print(getsignal(SIGINT) is default_int_handler, getsignal(SIGTERM))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ["True 0"]
