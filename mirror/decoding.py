"""Decode input from outside: almost valid JSON, dates and counts, and the names and hashes of git.

Used for answers of upstreams and bodies of webhooks. Text that UTF-8 or SQLite cannot hold is replaced; a
name or a hash that git would refuse is an error.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec

from mirror.times import normalised

Shape = TypeVar("Shape")

LARGEST_NUMBER = 2**63 - 1
"""The largest that SQLite can hold."""

_UNFIT = re.compile("[\0\ud800-\udfff]")  # after pairs of surrogates have become one character


@functools.cache
def _decoder(shape: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("Any", shape))


def decoded_bytes(body: bytes, shape: type[Shape]) -> Shape:
    """Decode JSON as `shape`; raises msgspec.ValidationError for another shape, ValueError for invalid JSON.

    Deep nesting may raise RecursionError, large numbers OverflowError. Text that UTF-8 or SQLite cannot
    hold (lone surrogates, invalid bytes, NUL) is replaced by U+FFFD; a byte order mark is left out.
    """
    decode: Callable[[bytes], Shape] = _decoder(cast("Hashable", shape)).decode
    # msgspec accepts NUL, at which many programs cut texts of SQLite short.
    if b"\\u0000" not in body and b"\0" not in body:
        try:
            return decode(body)
        except msgspec.ValidationError:
            raise  # a subclass of the error below, but mending text does not change a shape
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # no JSON, or JSON with text that msgspec is too strict for
    return decode(msgspec.json.encode(mended(body)))


def mended(body: bytes) -> Any:
    """Decode JSON leniently and repair its text; raises ValueError for invalid JSON."""
    return _mended(json.loads(body.decode("utf-8-sig", "replace"), strict=False))


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _UNFIT.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


LONGEST_COMPONENT, LONGEST_NAME = 255, 4096
"""In bytes of UTF-8: what file systems hold, and so every server that keeps a ref in a file."""

_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.IGNORECASE)
_REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.\Z|(?:\A|/)\.|\.lock(?:/|\Z)|\A/|/\Z|\A\Z")
"""What `git check-ref-format` refuses in the part of a name behind ``refs/heads/`` or ``refs/tags/``."""


def object_id(text: str) -> str:
    """Return the hash of an object in lower case: 40 or 64 hexadecimal digits, not all of them zeros.

    Raises ValueError; its message does not repeat the text.
    """
    if not _OBJECT_ID.fullmatch(text) or not text.strip("0"):
        raise ValueError("a hash is 40 or 64 hexadecimal digits")
    return text.lower()


def ref_name(text: str) -> str:
    """Return the name of a branch or tag if git accepts it; raises ValueError without repeating it."""
    longest = max(len(part.encode()) for part in text.split("/"))
    if _REFUSED.search(text) or longest > LONGEST_COMPONENT or len(text.encode()) > LONGEST_NAME:
        raise ValueError("git accepts no ref of such a name")
    return text


def moment(text: str | None) -> str | None:
    """Return a date in the form of the mirror; None where it is missing or invalid."""
    if text is None:
        return None
    try:
        # Nearly all dates have one of these two forms; the general way takes five times as long.
        if text[10:11] == "T" and text.endswith("+00:00"):
            if len(text) == 32 and text[19] == ".":
                datetime.fromisoformat(text)
                return f"{text[:26]}Z"
            if len(text) == 25:
                datetime.fromisoformat(text)
                return f"{text[:19]}.000000Z"
        return normalised(text)
    except (ValueError, OverflowError):
        return None


def count(number: object) -> int | None:
    """Return a count; None where it is missing, no number, negative, NaN or too large for SQLite."""
    if not isinstance(number, int | float) or not 0 <= number <= LARGEST_NUMBER:
        return None
    return int(number)
