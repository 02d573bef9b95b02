"""JSON of any shape, from a seed. hypothesis takes ten times as long to draw as many values."""

import math
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

_ODD = "\0\t\n\x1b\x7f\x85\xa0\xad\u0301\u200f\u2028\ufeff\ufffe\U0001f600<>&\"'\\]/:-_%{}"
_NUMBERS = (0, -1, 2**31, 2**63, 2**64, -(10**40), 0.5, -0.0, 1e308, math.inf, -math.inf, math.nan)


def random_json(
    choose: Random, keys: Sequence[str] = (), texts: Sequence[str] = (), *, surrogates: bool = False
) -> Any:
    """Return any value that JSON can have, three levels deep at most.

    keys: those of objects; any text without them.
    texts: some of the texts.
    surrogates: whether texts contain halves of characters, which JSON can escape and UTF-8 cannot write.
    """
    return _value(choose, keys, texts, 3, surrogates=surrogates)


def random_object(
    choose: Random, keys: Sequence[str], texts: Sequence[str] = (), *, most: int, surrogates: bool = False
) -> dict[str, Any]:
    """Return an object with at most `most` of the keys."""
    named = choose.sample(keys, choose.randrange(most + 1))
    return {key: _value(choose, keys, texts, 2, surrogates=surrogates) for key in named}


def random_text(choose: Random, *, surrogates: bool = False) -> str:
    """Return a text of up to eight characters, ordinary and odd ones."""
    return "".join(_character(choose, surrogates=surrogates) for _ in range(choose.randrange(9)))


def _character(choose: Random, *, surrogates: bool) -> str:
    kind = choose.randrange(4)
    if kind == 0:
        return choose.choice(_ODD)
    code = choose.randrange(32, 127) if kind < 3 else choose.randrange(sys.maxunicode + 1)
    is_half = 0xD800 <= code < 0xE000
    if surrogates and kind == 3 and choose.randrange(4) == 0:
        return chr(choose.randrange(0xD800, 0xE000))
    return "?" if is_half else chr(code)


def _value(choose: Random, keys: Sequence[str], texts: Sequence[str], depth: int, *, surrogates: bool) -> Any:
    kind = choose.randrange(9 if depth else 7)
    if kind < 7:
        return _leaf(choose, kind, texts, surrogates=surrogates)
    inner = [
        _value(choose, keys, texts, depth - 1, surrogates=surrogates) for _ in range(choose.randrange(5))
    ]
    if kind == 7:
        return inner
    names = [choose.choice(keys) if keys else random_text(choose, surrogates=surrogates) for _ in inner]
    return dict(zip(names, inner, strict=True))


def _leaf(choose: Random, kind: int, texts: Sequence[str], *, surrogates: bool) -> Any:
    if kind == 0:
        return choose.choice((None, True, False))
    if kind == 1:
        return choose.choice(_NUMBERS)
    if kind == 2:
        return choose.randrange(-1000, 1000)
    is_known = bool(texts) and choose.random() < 0.4
    return choose.choice(texts) if is_known else random_text(choose, surrogates=surrogates)
