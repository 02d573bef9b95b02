"""Files beside a published one: counts of rows for Datasette, a compressed copy, a checksum."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mirror.errors import ConfigError, StoreError
from mirror.publish.snapshot import READ_ONLY, Published, sha256_of
from mirror.store.files import explained, reading_address
from mirror.store.lock import replacing

ZSTD = ("zstd", "-3", "--threads=1", "--quiet", "--force", "--no-progress", "--stdout")
"""Compresses to 43 % in the time it takes to read the file. One thread always gives the same bytes."""


def check_tools() -> None:
    """Raise ConfigError where the program `zstd` is missing."""
    if shutil.which(ZSTD[0]) is None:
        raise ConfigError("--zst needs the program zstd: apt install zstd, or brew install zstd")


def write_inspect(published: Published, target: Path) -> None:
    """Write the file for `datasette --inspect-file`; without it, Datasette counts all rows at each start.

    Raises StoreError.
    """
    file = Path(published.file)
    with explained(file), closing(sqlite3.connect(reading_address(file), uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        counts = {
            name: {"count": connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]}
            for (name,) in names.fetchall()
        }
    about = {"hash": published.sha256, "size": published.bytes, "file": file.name, "tables": counts}
    _replace(target, lambda part: part.write_text(json.dumps({file.stem: about}, indent=1) + "\n"))


def write_checksum(file: Path) -> Path:
    """Write the SHA-256 of a file beside it, as `sha256sum --check` reads it; return the new file."""
    target = file.with_name(f"{file.name}.sha256")
    line = f"{sha256_of(file)}  {file.name}\n"
    _replace(target, lambda part: part.write_text(line))
    return target


def write_compressed(file: Path) -> Path:
    """Compress a file into another one beside it, and return that; raises StoreError."""
    target = file.with_name(f"{file.name}.zst")

    def compress(part: Path) -> None:
        with file.open("rb") as source, part.open("wb") as out:
            done = subprocess.run(ZSTD, stdin=source, stdout=out, stderr=subprocess.PIPE, check=False)  # noqa: S603
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise StoreError(f"{target}: zstd failed: {said[-1]}")

    _replace(target, compress)
    return target


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then put it there as a whole."""
    with replacing(target, part=target.with_name(f"{target.name}.part")) as part, explained(target):
        write(part)
        part.chmod(READ_ONLY)
