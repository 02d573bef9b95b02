"""Template filters: ages, sizes, highlighted names, changes in words."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment
from markupsafe import Markup, escape

from mirror import times
from mirror.queries.crawl import progress_text
from mirror.queries.rows import ChangeRow
from mirror.readable import size_text
from mirror.search import highlight_ranges
from mirror.times import from_text

SHORT_HASH = 12
LONGEST_NAME = 300

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
"""The event of a repository or an owner, for each kind of change."""


def install(env: Environment) -> None:
    """Add the filters to the templates."""
    env.filters |= {
        "moment": moment,
        "due": due,
        "progress": progress_text,
        "ago": ago,
        "grouped": grouped,
        "size_text": size_text,
        "marked": marked,
        "in_words": lambda kind: IN_WORDS.get(kind, kind.replace("_", " ")),
        "tone": tone,
        "shorthash": lambda text: (text or "")[:SHORT_HASH],
        "shortened": shortened,
        "host": lambda url: urlsplit(url).netloc,
        "first_line": lambda text: (text or "").strip().partition("\n")[0],
        "differences": lambda change: list(differences(change)),
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


def differences(change: ChangeRow) -> Iterator[tuple[str, str, str]]:
    """Yield the columns that an edit changed: name, old value, new value."""
    old, new = _object(change.old), _object(change.new)
    for name in [*old, *(name for name in new if name not in old)]:
        yield name.replace("_", " "), _value(old.get(name)), _value(new.get(name))


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _value(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return shortened(str(value))


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
