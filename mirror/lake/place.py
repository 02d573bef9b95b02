"""The storage of a lake: a folder, or a bucket of an object store. Files appear there as a whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mirror.errors import ConfigError, StoreError
from mirror.lake import address_of
from mirror.store.backup import held, sync_to_disk

try:
    from pyarrow import fs
    from pyarrow.lib import ArrowException
except ImportError:
    raise ConfigError("a lake needs pyarrow: pip install 'bitbucket-mirror[lake]'") from None

STAGING = "_staging"
"""The prefix of folders with unfinished files."""

_PIECE = 8_000_000


class Place:
    """The root of a lake, `DIR` or `s3://bucket/path`; paths are relative to it, with slashes.

    Raises ConfigError for an invalid address, StoreError if the place cannot be read or written.
    """

    def __init__(self, address: str) -> None:
        place = address_of(address)
        self._address, self._is_local = place.text, place.is_folder
        if self._is_local:
            if os.path.lexists(place.given) and not Path(place.given).is_dir():
                raise ConfigError(f"{self}: is a file; a lake needs a folder")
            self.fs, self.root = fs.LocalFileSystem(), place.given
            return
        try:
            self.fs, root = fs.FileSystem.from_uri(place.given)
        except (ArrowException, OSError, ValueError) as error:
            raise ConfigError(f"{self}: cannot be used: {_first_line(error)}") from error
        self.root = str(root).rstrip("/")

    def __str__(self) -> str:
        return self._address

    def path(self, name: str) -> str:
        """Return the path of a file for the file system of the place."""
        return f"{self.root}/{name}"

    @contextmanager
    def staging(self, owner: str) -> Iterator[Path]:
        """Yield an empty folder for unfinished files; it is removed at the end.

        Raises StoreLocked while another process of this machine uses the folder of the same owner.
        """
        if not self._is_local:
            with tempfile.TemporaryDirectory(prefix="mirror-lake-") as name:
                yield Path(name)
            return
        folder = Path(self.root) / f"{STAGING}-{owner}"
        with held(folder.with_name(f"{folder.name}.lock"), f"exporting {owner} into {self}"):
            try:
                with self.explained():
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def put(self, file: Path, name: str) -> None:
        """Move a finished file from the staging folder to its place."""
        with self.explained():
            if self._is_local:
                target = Path(self.path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open("rb") as written:
                    os.fsync(written.fileno())
                file.replace(target)
                sync_to_disk(target.parent)
                return
            with file.open("rb") as source, self.fs.open_output_stream(self.path(name)) as target_stream:
                while piece := source.read(_PIECE):
                    target_stream.write(piece)

    def write(self, staging: Path, name: str, text: bytes) -> None:
        """Write a small file."""
        part = staging / "part"
        with self.explained():
            part.write_bytes(text)
        self.put(part, name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist."""
        with self.explained():
            try:
                with self.fs.open_input_stream(self.path(name)) as stream:
                    found: bytes = stream.read()
            except FileNotFoundError:
                return None
        return found

    def open(self, name: str) -> Any:
        """Open a file for random reads."""
        with self.explained():
            return self.fs.open_input_file(self.path(name))

    def list(self, name: str) -> list[str]:
        """Return the files below a folder, unordered; none if it does not exist."""
        with self.explained():
            found = self.fs.get_file_info(
                fs.FileSelector(self.path(name), allow_not_found=True, recursive=True)
            )
        return [one.path[len(self.root) + 1 :] for one in found if one.type == fs.FileType.File]

    def names(self) -> set[str]:
        """Return the names of files and folders at the root; none if it does not exist."""
        with self.explained():
            found = self.fs.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        return {one.base_name for one in found}

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with self.explained(), suppress(FileNotFoundError):
            self.fs.delete_file(self.path(name))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn errors of pyarrow and the system into StoreError."""
        try:
            yield
        except (ArrowException, OSError) as error:
            raise StoreError(f"{self}: cannot be read or written: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).strip().partition("\n")[0][:300] or type(error).__name__
