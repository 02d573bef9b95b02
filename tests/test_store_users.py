"""A mirror that several users of the system share: what each makes, and what keeps another from writing."""

import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mirror.errors import StoreError
from mirror.store import Store
from mirror.store.files import open_reader

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
OWNER, OTHER = 12_345, 12_346


@pytest.fixture
def path() -> Iterator[Path]:
    """A mirror of OWNER in a folder in which everybody may make files."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder, "mirror.db")
        Store(path, 0o644).close()
        os.chown(path, OWNER, OWNER)
        yield path


def as_user(number: int, work: Callable[[], object]) -> None:
    """Do something in a child as another user; fail if it raises."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the parent reports it
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_may_only_read_makes_no_files_that_the_owner_cannot_write(path: Path) -> None:
    """SQLite would leave its journal beside the mirror, with the mode of the mirror, as the reader's."""

    def read() -> None:
        with closing(open_reader(path)) as connection:
            connection.execute("SELECT count(*) FROM repositories").fetchone()

    as_user(OTHER, read)
    assert [one.name for one in path.parent.iterdir()] == ["mirror.db"]
    as_user(OWNER, lambda: Store(path).close())


def test_an_error_names_whose_file_keeps_one_from_writing(path: Path) -> None:
    """SQLite tells neither the file nor its owner."""

    def refused(foreign: Path, owner: str) -> None:
        with (
            pytest.raises(StoreError, match=re.escape(f"; {foreign} belongs to {owner}")),
            Store(path) as store,
        ):
            store.save_upstream("cloud", "cloud", "https://api.example.com")

    as_user(OTHER, lambda: refused(path, f"user {OWNER}"))
    for mode in (0o600, 0o644):
        for end in ("-wal", "-shm"):
            beside = Path(f"{path}{end}")
            beside.touch(mode)
            as_user(OWNER, lambda: refused(beside, "root"))  # noqa: B023 - called at once
            for made in path.parent.glob("mirror.db-*"):
                made.unlink()
    path.unlink()
    path.parent.chmod(0o755)
    as_user(OTHER, lambda: refused(path.parent, "root"))


def test_an_error_blames_no_other_user_for_a_file_of_ones_own(path: Path) -> None:
    """The owner may have made it read-only; whose the folder is does not matter then."""
    path.chmod(0o444)

    def refused() -> None:
        with pytest.raises(StoreError) as error:
            Store(path)
        assert "belongs to" not in str(error.value)

    as_user(OWNER, refused)


def test_what_root_makes_belongs_to_the_owner_of_the_folder(path: Path) -> None:
    """So that a service goes on after a first sync by root, as after a restore."""
    os.chown(path.parent, OWNER, OWNER)
    path.parent.chmod(0o700)
    path.unlink()
    Store(path).close()
    assert path.stat().st_uid == OWNER
    as_user(OWNER, lambda: Store(path).close())
