"""Pages: what was asked for, and the envelope with a `next` that knows its place.

`next` carries the sort key of the last row, so a deep page costs what the first one costs, and rows that
come or go while somebody reads are neither lost nor doubled. ``page=N`` counts rows, as Bitbucket does.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from mirror.serve.answers import ApiError

DEFAULT_LENGTH = 10
LONGEST = 100
_MARK = "c"  # a page that is no number

Position = tuple[str | int | float | None, ...]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The page that was asked for: by number, or behind a position."""

    length: int = DEFAULT_LENGTH
    number: int = 1
    after: Position | None = None
    size: int | None = None

    @property
    def offset(self) -> int:
        """How many rows come before, where the page was asked for by its number."""
        return 0 if self.after is not None else (self.number - 1) * self.length


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """What an opaque page holds: its number, the place it begins behind, the size where that is costly."""

    number: int
    after: tuple[str | int | float | None, ...]
    size: int | None = None


def window(parameters: Mapping[str, str]) -> Window:
    """Read `pagelen` and `page`; raises ApiError 400."""
    length = _length(parameters)
    page = parameters.get("page", "1")
    if not page.startswith(_MARK):
        return Window(length=length, number=_positive(parameters, "page", 1))
    try:
        raw = base64.urlsafe_b64decode(page[1:] + "=" * (-len(page[1:]) % 4))
        place = msgspec.json.decode(raw, type=_Place)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise _invalid("page") from None
    is_counted = place.size is None or 0 <= place.size < 2**53
    if not (0 < place.number < 2**53 and is_counted) or any(_unreadable(one) for one in place.after):
        raise _invalid("page")
    return Window(length=length, number=place.number, after=place.after, size=place.size)


def opaque(number: int, after: Sequence[Any], size: int | None) -> str:
    """Write a place as a page."""
    raw = msgspec.json.encode(_Place(number, tuple(after), size))
    return _MARK + base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Links(msgspec.Struct, frozen=True):
    """Makes the addresses of other pages: the one that was asked for, with another `page`."""

    address: str
    parameters: Mapping[str, str]

    def to(self, page: str, **others: str) -> str:
        """Return the address of a page."""
        return f"{self.address}?{urlencode({**self.parameters, **others, 'page': page})}"


def _length(parameters: Mapping[str, str]) -> int:
    """Read `pagelen`; a number of however many digits is clamped."""
    text = parameters.get("pagelen", "")
    if text.isascii() and text.isdecimal() and len(text.lstrip("0")) >= 10:
        return LONGEST
    return min(_positive(parameters, "pagelen", DEFAULT_LENGTH), LONGEST)


def _positive(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise _invalid(name)
    return int(text)


def _unreadable(value: str | float | None) -> bool:
    """Tell whether SQLite could not be given a value that somebody made up."""
    if isinstance(value, int):
        return abs(value) >= 2**63
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)


def _invalid(name: str) -> ApiError:
    return ApiError(400, f"Invalid {name}")
