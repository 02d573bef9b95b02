"""Mirror files that are made once in a test process and then copied, which is much quicker."""

import os
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mirror.store import Store


def copy_empty(path: Path) -> None:
    """Put an empty mirror of this version at a path."""
    copy_made(path, _make_empty)


def opened(path: Path) -> Store:
    """Open a mirror for writing; a new one begins as a copy of an empty one."""
    if not path.exists():
        copy_empty(path)
    return Store(path)


def copy_made(path: Path, make: Callable[[Path], None]) -> None:
    """Put the file that `make` makes and closes at a path; one that is there already is filled."""
    if path.exists():
        make(path)
        return
    _write(path, _contents(make))


class MirrorOf(NamedTuple):
    """The contents of a mirror, and the address of the sandbox that it was synced from."""

    origin: str
    contents: bytes

    def copy(self, path: Path, origin: str) -> None:
        """Put it at a path, as a mirror of an equal sandbox at another address."""
        here, there = (address.rpartition("/")[2].encode() for address in (origin, self.origin))
        assert len(here) == len(there)  # so the file may be edited as it is: see `long_port`
        _write(path, self.contents.replace(there, here))


def long_port() -> int:
    """Return a free port of five digits, where the system may choose one of four."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port: int = found.getsockname()[1]
        if port > 9_999:
            return port


def _write(path: Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(contents)


def _make_empty(path: Path) -> None:
    Store(path).close()


@cache
def _contents(make: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mirror.db"
        make(path)
        return path.read_bytes()
