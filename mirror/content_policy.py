"""Check the sources that an operator adds to the content security policy of Datasette's pages."""

import re
from collections.abc import Mapping
from functools import lru_cache

from mirror.readable import did_you_mean

DIRECTIVES = (
    "connect-src", "font-src", "frame-src", "img-src", "media-src", "script-src", "style-src", "worker-src",
)  # fmt: skip
"""The directives to which sources can be added."""

_HOST = re.compile(
    r"(https?|wss?)://(\*\.)?[a-z0-9][\w.-]*(:\d{1,5})?(/[\w./~%!$&()*+=:@-]*)?", re.ASCII | re.IGNORECASE
)
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "font-src": ("data:",),
    "img-src": ("data:", "blob:"),
    "media-src": ("data:", "blob:"),
    "script-src": ("'unsafe-eval'", "'wasm-unsafe-eval'"),
    "worker-src": ("blob:",),
}
"""The keywords that are allowed besides hosts."""


@lru_cache(maxsize=8)
def sources_of(text: str) -> Mapping[str, tuple[str, ...]]:
    """Parse ``img-src https://tiles.example; script-src 'unsafe-eval'``; raises ValueError.

    No allowed source can end a directive or a header, or permit inline scripts.
    """
    found = dict[str, tuple[str, ...]]()
    for part in filter(str.strip, text.split(";")):
        directive, *sources = part.split()
        if directive not in DIRECTIVES:
            hint = did_you_mean(directive, DIRECTIVES)
            raise ValueError(f"nothing can be added to {directive!r}{hint}; only to {', '.join(DIRECTIVES)}")
        if not sources:
            raise ValueError(f"{directive} names no source; write: {directive} https://host.example")
        for source in sources:
            _check(directive, source)
        found[directive] = (*found.get(directive, ()), *sources)
    return found


def _check(directive: str, source: str) -> None:
    keywords = _KEYWORDS.get(directive, ())
    if source in keywords or _HOST.fullmatch(source):
        return
    if source.lower().strip("'") == "unsafe-inline":
        raise ValueError(f"{directive} 'unsafe-inline' would let names and descriptions run scripts")
    others = "".join(f" or {one}" for one in keywords)
    raise ValueError(f"{source!r} is no source of {directive}; write https://host.example{others}")
