"""Compiled templates: compiling takes most of the time of a first page.

They are kept in the process, and on the disk where Python keeps compiled modules.
"""

import hashlib
import sys
from contextlib import suppress
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path

from jinja2 import BytecodeCache, Environment, FileSystemBytecodeCache
from jinja2.bccache import Bucket

from mirror.serve import page_policy

FIRST_PAGE = ("mirror_home.html", "mirror_base.html", "mirror_bar.html", "mirror_macros.html")
"""The templates of the home page."""

_in_process = dict[str, bytes]()
"""What was compiled for any Datasette of this process."""


class CompiledTemplates(BytecodeCache):
    """A cache in memory, and on a disk that may be None or read-only."""

    def __init__(self, known: dict[str, bytes], disk: FileSystemBytecodeCache | None) -> None:
        self._known, self._disk = known, disk

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take what was compiled from the same text."""
        if bucket.key in self._known:
            bucket.bytecode_from_string(self._known[bucket.key])
        elif self._disk is not None:
            with suppress(OSError):
                self._disk.load_bytecode(bucket)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        self._known[bucket.key] = bucket.bytecode_to_string()
        if self._disk is not None:
            with suppress(OSError):
                Path(self._disk.directory).mkdir(exist_ok=True)
                self._disk.dump_bytecode(bucket)


def _disk(folder: Path) -> FileSystemBytecodeCache:
    """Return the place for the templates of a folder.

    Besides a template's text, what makes code of it counts: jinja2, Datasette's settings of it, and the
    extension of `page_policy`.
    """
    made_by = hashlib.sha256(Path(page_policy.__file__).read_bytes())
    made_by.update(f"{version('jinja2')} {version('datasette')}".encode())
    kept = Path(cache_from_source(str(folder / "page.py"))).parent
    return FileSystemBytecodeCache(str(kept), f"%s.{made_by.hexdigest()[:16]}.jinja")


def install(
    env: Environment,
    folder: Path,
    *,
    known: dict[str, bytes] = _in_process,
    on_disk: bool = not sys.dont_write_bytecode,
) -> None:
    """Keep compiled templates: of this process in `known`, of all that use the folder beside it."""
    env.bytecode_cache = CompiledTemplates(known, _disk(folder) if on_disk else None)


def prepare_first_page(env: Environment) -> None:
    """Compile what the home page needs, before it is asked for."""
    for name in FIRST_PAGE:
        env.get_template(name)
