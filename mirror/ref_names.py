"""Git's rules for the names of refs and for object ids."""

import re

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
