"""Templates: how they are compiled, and their filters for ages, sizes, highlighted names, changes in words.

A script that stands in a template gets the nonce of the answer, and so does what the hooks of plugins collect
and templates write: `extra_body_script` and `extra_js_urls`. A script in a value has none and does not run.
"""

import hashlib
import re
import sys
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from urllib.parse import quote, urlsplit

from jinja2 import BytecodeCache, Environment, FileSystemBytecodeCache
from jinja2.bccache import Bucket
from jinja2.ext import Extension
from markupsafe import Markup, escape

from mirror import times
from mirror.queries.crawl import progress_text
from mirror.queries.rows import ChangeRow
from mirror.readable import edits, repositories_text, size_text
from mirror.search import highlight_ranges
from mirror.serve.middleware import current_policy
from mirror.times import from_text

# The templates of the home page.
FIRST_PAGE = ("mirror_home.html", "mirror_base.html", "mirror_bar.html", "mirror_macros.html")

_SCRIPT = re.compile(r"<script(?=[\s>{])", re.IGNORECASE)

_in_process = dict[str, bytes]()  # what was compiled for any Datasette of this process


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
    """Return where the compiled templates of a folder are."""
    # Compiled code depends on the text of a template, on jinja2, on Datasette's settings of it, and on
    # `ScriptNonces`, which is in this file.
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
    # Compiling takes most of the time of a first page, so compiled templates are kept.
    env.add_extension(ScriptNonces)
    env.globals.update(nonce=nonce)
    env.filters["style"] = style
    env.bytecode_cache = CompiledTemplates(known, _disk(folder) if on_disk else None)


def prepare_first_page(env: Environment) -> None:
    """Compile what the home page needs, before it is asked for."""
    for name in FIRST_PAGE:
        env.get_template(name)


SHORT_HASH = 12
LONGEST_NAME = 300

# The event of a repository or an owner, for each kind of change.
IN_WORDS = {
    "created": "was first seen",
    "updated": "was edited",
    "renamed": "was renamed",
    "transferred": "moved to another owner",
    "made_private": "was made private",
    "made_public": "was made public",
    "deleted": "is gone",
    "restored": "is back",
    "branch_created": "has a new branch",
    "branch_moved": "was pushed to, on branch",
    "branch_deleted": "lost the branch",
    "tag_created": "has a new tag",
    "tag_moved": "had a tag moved",
    "tag_deleted": "lost the tag",
    "owner_renamed": "has another name",
}


def add_filters(env: Environment) -> None:
    """Add the filters to the templates."""
    env.filters |= {
        "moment": moment,
        "due": due,
        "progress": progress_text,
        "ago": ago,
        "grouped": grouped,
        "repositories_text": repositories_text,
        "size_text": size_text,
        "marked": marked,
        "in_words": lambda kind: IN_WORDS.get(kind, kind.replace("_", " ")),
        "tone": tone,
        "shorthash": lambda text: (text or "")[:SHORT_HASH],
        "shortened": shortened,
        "host": lambda url: urlsplit(url).netloc,
        "first_line": lambda text: (text or "").strip().partition("\n")[0],
        "differences": lambda change: list(edits(change.old, change.new)),
    }


def grouped(number: float | None) -> str:
    """Format a number with thousands separators; a dash if it is not known."""
    return "\N{EN DASH}" if number is None else f"{number:,.0f}"


def ago(text: str | None, now: datetime) -> str:
    """Format a time as its age; a text that is not a time stays as it is."""
    try:
        return times.ago(text, now)
    except (ValueError, OverflowError):
        return shortened(text, 30)


def moment(text: str | None, now: datetime) -> Markup:
    """Return a time as its age, with the exact time as a tooltip."""
    if not text:
        return Markup('<span class="quiet">never</span>')
    try:
        exact = from_text(text).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return Markup("<span>{}</span>").format(shortened(text, 30))
    return Markup('<time datetime="{}" title="{}">{}</time>').format(f"{text[:19]}Z", exact, ago(text, now))


def due(text: str, now: datetime) -> Markup:
    """Return when something is due; ``due now`` if the time has passed."""
    return moment(text, now) if ago(text, now).startswith("in ") else Markup("due now")


def shortened(text: str | None, most: int = LONGEST_NAME) -> str:
    """Shorten a text to at most `most` characters."""
    text = text or ""
    return text if len(text) <= most else text[: most - 1] + "…"


def marked(text: str | None, query: str, most: int = LONGEST_NAME, *, owners: bool = True) -> Markup:
    """Return a name in which the letters that match the query are highlighted.

    `owners`: as `highlight_ranges` says.
    """
    text = shortened(text, most)
    parts, at = list[Markup](), 0
    for start, end in highlight_ranges(text, query, owners=owners):
        parts += [escape(text[at:start]), Markup("<mark>{}</mark>").format(text[start:end])]
        at = end
    return Markup().join([*parts, escape(text[at:])])


def tone(kind: str) -> str:
    """Return the CSS class for a change: good, bad or even."""
    if kind in ("deleted", "branch_deleted", "tag_deleted", "made_private"):
        return "bad"
    return "good" if kind in ("created", "restored", "branch_created", "tag_created") else "even"


def sentence(change: ChangeRow) -> str:
    """Describe a change in one line of plain text, for feeds."""
    subject = change.repository or change.owner or "somebody"
    parts = [shortened(subject, 120), IN_WORDS.get(change.kind, change.kind.replace("_", " "))]
    if change.ref:
        parts.append(shortened(change.ref, 120))
    if change.kind in ("renamed", "transferred", "owner_renamed"):
        parts.append(f"({shortened(change.old, 120)} → {shortened(change.new, 120)})")
    if change.was_forced:
        parts.append("by force")
    return " ".join(parts)
