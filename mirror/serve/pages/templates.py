"""How templates are compiled: once, and with a nonce for each script of a page of Datasette.

Compiling takes most of the time of a first page, so compiled templates are kept in the process, and on the
disk where Python keeps compiled modules.

A script that stands in a template gets the nonce of the answer, and so does what the hooks of plugins collect
and templates write: `extra_body_script` and `extra_js_urls`. A script in a value has none and does not run.
"""

import hashlib
import re
import sys
from contextlib import suppress
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from urllib.parse import quote, urlsplit

from jinja2 import BytecodeCache, Environment, FileSystemBytecodeCache
from jinja2.bccache import Bucket
from jinja2.ext import Extension

from mirror.serve.middleware import current_policy

FIRST_PAGE = ("mirror_home.html", "mirror_base.html", "mirror_bar.html", "mirror_macros.html")
"""The templates of the home page."""

_SCRIPT = re.compile(r"<script(?=[\s>{])", re.IGNORECASE)

_in_process = dict[str, bytes]()
"""What was compiled for any Datasette of this process."""


def nonce() -> str:
    """Return the nonce of the page that is being rendered."""
    policy = current_policy.get()
    return "" if policy is None else policy.nonce


def style(url: str) -> str:
    """Let the page load a stylesheet that a plugin collected; return its address."""
    policy = current_policy.get()
    parts = urlsplit(str(url))
    if policy is not None and parts.scheme in ("http", "https") and re.fullmatch(r"[\w.:-]+", parts.netloc):
        policy.styles[f"{parts.scheme}://{parts.netloc}{quote(parts.path, safe='/%~')}"] = None
    return url


class ScriptNonces(Extension):
    """Gives each script in a template the nonce of the answer; the mirror's own pages need none."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Change the source of a template."""
        del filename
        return (
            source
            if (name or "").startswith("mirror_")
            else _SCRIPT.sub('<script nonce="{{ nonce() }}"', source)
        )


class CompiledTemplates(BytecodeCache):
    """A cache in memory, and on a disk that may be None or read-only."""

    def __init__(self, known: dict[str, bytes], disk: FileSystemBytecodeCache | None) -> None:
        self._known, self._disk = known, disk

    def load_bytecode(self, bucket: Bucket) -> None:
        """Load what was compiled from the same text."""
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
    """Return where the compiled templates of a folder are.

    Compiled code depends on the text of a template, on jinja2, on Datasette's settings of it, and on
    `ScriptNonces`.
    """
    made_by = hashlib.sha256(Path(__file__).read_bytes())
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
    """Let templates use nonces, and keep what was compiled.

    :param known: the compiled templates of this process.
    :param on_disk: whether to keep them beside `folder` too, for other processes.
    """
    env.add_extension(ScriptNonces)
    env.globals.update(nonce=nonce)
    env.filters["style"] = style
    env.bytecode_cache = CompiledTemplates(known, _disk(folder) if on_disk else None)


def prepare_first_page(env: Environment) -> None:
    """Compile what the home page needs, before it is asked for."""
    for name in FIRST_PAGE:
        env.get_template(name)
