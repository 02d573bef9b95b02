"""Webhooks that were acknowledged and are not in the mirror yet: a folder beside it with a file for each.

What is in the folder survives the end of the process and of the machine. Any process that serves the mirror
may write it: a delivery that two of them write is recognised as a repeated one.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mirror.store.news import Delivery, News

MOST_FILES = 1_000
SUFFIX = ".json"

log = logging.getLogger("mirror.webhooks")


class Kept(msgspec.Struct, frozen=True):
    """A verified delivery, what it says, and the upstream it came from."""

    upstream: str
    delivery: Delivery
    news: list[News]


class SpoolFull(Exception):
    """As many deliveries wait as may be kept."""


class Spool:
    """The folder of one mirror, readable by its owner alone; it is made when it is needed first."""

    def __init__(self, mirror: Path, *, most_files: int = MOST_FILES) -> None:
        resolved = mirror.resolve()
        self._folder = resolved.with_name(resolved.name + ".webhooks")
        self._most_files = most_files

    def add(self, kept: Kept) -> None:
        """Keep a delivery; it is on the disk when this returns. Raises SpoolFull and OSError."""
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _sync(self._folder.parent)
        if len(self._names()) >= self._most_files:
            raise SpoolFull
        # Names sort in the order of arrival; no two are the same.
        descriptor, unfinished = tempfile.mkstemp(prefix=f"{kept.delivery.at}-", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).rename(f"{unfinished}{SUFFIX}")
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        _sync(self._folder)

    def waiting(self) -> Iterator[tuple[str, Kept]]:
        """Yield name and content of what waits, in the order of arrival; what is no delivery is set aside."""
        for name in self._names():
            try:
                yield name, msgspec.json.decode((self._folder / name).read_bytes(), type=Kept)
            except FileNotFoundError:
                continue  # another process has written it
            except OSError as error:
                log.warning("%s: cannot be read: %s", self._folder / name, error.strerror)
            except msgspec.MsgspecError:
                self.set_aside(name)

    def remove(self, name: str) -> None:
        """Forget one that is in the mirror; if it stays, writing it again finds it repeated."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def set_aside(self, name: str) -> None:
        """Rename one that cannot be written, so that it is not tried again."""
        with contextlib.suppress(OSError):
            (self._folder / name).rename(self._folder / f"{name}.failed")
        log.warning("%s.failed: a kept webhook that could not be understood", self._folder / name)

    def is_empty(self) -> bool:
        """Return whether nothing waits."""
        return not self._names()

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir() if path.suffix == SUFFIX)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("%s: cannot be read: %s", self._folder, error.strerror)
            return []


def _sync(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
