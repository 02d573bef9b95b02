"""Write texts of others, sizes, suggestions for typing errors, and CSV for people; ages: `mirror.times`."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

SIZES = ("kB", "MB", "GB", "TB", "PB")

_JOINERS = "\u200c\u200d"
_HIDDEN = (
    # control characters except tabs and line ends; surrogates and other code points without characters
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    # what reverses the text around it, and what is invisible
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff0-\ufffb"
)
_HIDDEN_BEYOND = ((0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE00FF))
"""The same beyond the first 65,536 characters, where a regular expression slows down with each range."""
_SUSPECT = re.compile(f"[{_HIDDEN}{_JOINERS}\r\U00010000-\U0010ffff]")

_PARTS_OF_HTML = re.compile(r"<(script|style|textarea)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_SHOWN_ATTRIBUTES = re.compile(r'\b(?:title|aria-label|alt|placeholder|label)="[^"]*"')


def visible(text: str) -> str:
    r"""Escape invisible characters, and those that reverse the text around them: ``\u202e``.

    Tabs and line ends stay, but not a single carriage return, which makes a terminal overwrite the line.
    """
    return text if text.isascii() and text.isprintable() else _SUSPECT.sub(_escape, text)


def visible_html(page: str) -> str:
    """Escape those characters in the text of a page; addresses and values of fields stay as they are."""
    if not _SUSPECT.search(page):
        return page
    parts, at = list[str](), 0
    for tag in _PARTS_OF_HTML.finditer(page):
        parts += [visible(page[at : tag.start()]), _SHOWN_ATTRIBUTES.sub(lambda one: visible(one[0]), tag[0])]
        at = tag.end()
    return "".join([*parts, visible(page[at:])])


def abridged(text: str, most: int) -> str:
    """Return a text of at most `most` characters: the beginning and the end of a longer one."""
    end = most // 3
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def repositories_text(number: int) -> str:
    """Write a number of repositories: ``1 repository``, ``2,000 repositories``."""
    return f"{number:,} {'repository' if number == 1 else 'repositories'}"


def requests_text(number: int) -> str:
    """Write a number of requests: ``1 request``, ``2,000 requests``."""
    return f"{number:,} {'request' if number == 1 else 'requests'}"


def size_text(size: float | None) -> str:
    """Write a number of bytes: ``999 bytes``, ``1.2 MB``, ``12 MB``."""
    if size is None:
        return "not known"
    if size < 1000:
        return "1 byte" if size == 1 else f"{size:.0f} bytes"
    value, unit = size / 1000, 0
    while value >= 999.5 and unit < len(SIZES) - 1:
        value, unit = value / 1000, unit + 1
    # Two digits are enough; 9.95 would be written as 10.0.
    return f"{value:.1f} {SIZES[unit]}" if value < 9.95 else f"{value:,.0f} {SIZES[unit]}"


def edits(old: str | None, new: str | None) -> Iterator[tuple[str, str, str]]:
    """Yield what an edit changed: each setting with its former and its new value, as people write them.

    `old` and `new` are JSON objects of columns, as `changes` has them; other texts have no settings.
    """
    before, after = _object(old), _object(new)
    for name in {**before, **after}:
        yield name.replace("_", " "), _in_words(before.get(name)), _in_words(after.get(name))


def _object(text: str | None) -> dict[str, Any]:
    import json  # noqa: PLC0415 - few commands show edits

    try:
        value = json.loads(text or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _in_words(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _escape(found: re.Match[str]) -> str:
    letter, text, at = found[0], found.string, found.start()
    before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
    if letter == "\r":
        return letter if after == "\n" else "\\r"
    # Emoji and some scripts need joiners; between other letters they are invisible.
    if letter in _JOINERS and before > "\x7f" and after > "\x7f":
        return letter
    code = ord(letter)
    if code < 0x10000:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    is_hidden = code & 0xFFFE == 0xFFFE or any(first <= code <= last for first, last in _HIDDEN_BEYOND)
    return f"\\U{code:08x}" if is_hidden else letter


def did_you_mean(word: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ``; did you mean 'search'?`` for a word that is nearly one of `allowed`, else "".

    `cutoff` is the least similarity, from 0 to 1.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it

    by_lower = {each.lower(): each for each in allowed}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


# Spreadsheets run a cell that begins with one of these as a formula (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
CSV_ROWS = 1_000
"""Rows that are written at a time."""


def csv_chunks(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield the line of the columns, then the rows, CSV_ROWS at a time.

    None is an empty cell, a boolean ``yes`` or ``no``. A text that a spreadsheet would run as a
    formula gets an apostrophe before it.
    """
    import csv  # noqa: PLC0415 - most commands write none
    import io  # noqa: PLC0415

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for number, row in enumerate(rows, 1):
        writer.writerow([_cell(value) for value in row])
        if number % CSV_ROWS == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
