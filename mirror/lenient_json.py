"""Decode JSON as servers send it; text that UTF-8 or SQLite cannot hold is replaced.

Used for answers of upstreams and for bodies of webhooks.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import msgspec

Shape = TypeVar("Shape")

_UNFIT = re.compile("[\0\ud800-\udfff]")  # after pairs of surrogates have become one character


@functools.cache
def _decoder(shape: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("Any", shape))


def decoded_bytes(body: bytes, shape: type[Shape]) -> Shape:
    """Decode JSON as `shape`; raises msgspec.ValidationError for another shape, ValueError for invalid JSON.

    RecursionError and OverflowError may come of nesting and of numbers. Text that UTF-8 or SQLite cannot
    hold (lone surrogates, invalid bytes, NUL) is replaced by U+FFFD; a byte order mark is left out.
    """
    decode: Callable[[bytes], Shape] = _decoder(cast("Hashable", shape)).decode
    if b"\\u0000" not in body and b"\0" not in body:
        try:
            return decode(body)
        except msgspec.ValidationError:
            raise
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
