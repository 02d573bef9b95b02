"""The fixtures that several test files share; helper modules provide what they are made of."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from _pytest.runner import runtestprotocol
from callers import MixedMirror
from cli_runner import Folder
from fixtures_db import FixtureDb, fill_mixed, fill_public
from hypothesis import settings
from webhook_client import WebhookClient, webhook_mirror

MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own there
ROOM = 2 << 30
"""Bytes; a whole run leaves less than half of them."""
LONGEST = ("test_package", "test_soak")
FORKING = (
    "test_publish", "test_store_backup", "test_store_restore", "test_store_modes", "test_store_users",
    "test_history", "test_unexpected",
)  # fmt: skip
"""They fork their process often, which takes four times as long once other tests made it grow."""


settings.register_profile("no times", deadline=None)  # a busy machine takes ten times as long
settings.load_profile("no times")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what all processes of a run use."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores Ctrl-C for what it starts with `&`, and so would the commands that tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("npm_config_prefer_offline", "true")  # ask no registry about what is in the cache
    if config.getoption("numprocesses", None) and not sys.dont_write_bytecode:
        _rewrite_asserts(config)
    _use_memory()


def _rewrite_asserts(config: pytest.Config) -> None:
    """Compile test files that changed, before processes start that would each do so, 4 s of CPU for all."""
    state = config.stash[rewrite.assertstate_key]
    for path in Path(__file__).parent.glob("test_*.py"):
        folder = rewrite.get_cache_dir(path)
        compiled = folder / f"{path.stem}{rewrite.PYC_TAIL}"
        if rewrite._read_pyc(path, compiled) is None and rewrite.try_makedirs(folder):
            stamp, code = rewrite._rewrite_test(path, config)
            rewrite._write_pyc(state, code, stamp, compiled)


def _use_memory() -> None:
    """Make the files of tests in memory, unless TMPDIR names a place: SQLite waits for a disk at each close.

    Not where there is too little room, or where no program may be started, as in a plain container.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free > ROOM and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start two processes more than there are cores: tests often wait for a process or a thread."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits longest, so that no process is left with it alone in the end, and what forks."""
    items.sort(key=lambda item: item.path.stem not in LONGEST + FORKING)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the tests and all modules out of the collections of garbage: they stay until the end.

    To look through them again and again takes a third of all CPU time of a whole run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)  # by default, what few tests leave is looked through again and again
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Do what pytest does, but tell the process that prints of no setup and no teardown that passed.

    To pass these reports on takes a tenth of what pytest itself needs for a test.
    """
    if not hasattr(item.config, "workerinput"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder to run `mirror` in."""
    return Folder(tmp_path)


@pytest.fixture
def public_db(tmp_path: Path) -> Iterator[FixtureDb]:
    """A mirror without private repositories, open for writing."""
    filled = fill_public(tmp_path / "mirror.db")
    yield filled
    filled.store.close()


@pytest.fixture
def public_path(public_db: FixtureDb) -> Path:
    """The file of a mirror without private repositories, which no one has open."""
    public_db.store.close()
    return public_db.path


@pytest.fixture
def mixed_db(tmp_path: Path) -> Iterator[FixtureDb]:
    """A mirror with private repositories of every sort, open for writing."""
    filled = fill_mixed(tmp_path / "mirror.db")
    yield filled
    filled.store.close()


@pytest.fixture
def mixed_path(mixed_db: FixtureDb) -> Path:
    """The file of a mirror with private repositories of every sort, which no one has open."""
    mixed_db.store.close()
    return mixed_db.path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> MixedMirror:
    """A served mirror with private repositories, for tests that write nothing another test reads."""
    return MixedMirror(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def hook(tmp_path: Path) -> WebhookClient:
    """A synced and served mirror whose upstream sends webhooks."""
    return webhook_mirror(tmp_path)
