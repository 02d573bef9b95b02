"""Texts that somebody wrote to do harm, a mirror full of one, and a judge of the HTML that shows them."""

from pathlib import Path
from typing import Any

import pytest
from fixtures_db import LATER, FixtureDb, hg_ref, owner, repository

SCRIPT = "<script>alert(1)</script>"
TEXTS = (
    SCRIPT, '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "{{ 7*7 }}{% raw %}", "a%2F..%2Fb",
    "\u202eevil\u202c", "العربية", "x" * 10_000, "\x01\x7f\x85", "]]>-->", "&amp;&#0;", "..", "?#%",
    "a b\tc\nd",
    "\N{PILE OF POO}" * 200, "javascript:alert(1)",
)  # fmt: skip


def fill_hostile(path: Path, text: str) -> None:
    """Put a text wherever somebody else's text can stand."""
    filled = FixtureDb(path)
    by = owner(text, uuid="{by}", display_name=text)
    said: dict[str, Any] = {
        "uuid": "{it}",
        "name": text,
        "description": text,
        "website": text,
        "language": text,
    }
    filled.repositories([repository(f"{text}/{text}", by, **said)], first=True)
    filled.repositories([repository("a/fork", parent_uuid="{it}", parent_full_name="x")], first=True)
    ref: dict[str, Any] = {"target_message": text, "target_author": text}
    filled.refs("a/fork", [hg_ref("branch", "b", "1")])
    for digit in "12":
        filled.refs(
            f"{text}/{text}", [hg_ref("branch", text, digit, **ref), hg_ref("tag", text, digit, **ref)]
        )
    filled.repositories(
        [
            repository(
                f"{text}/{text}x", by, uuid="{it}", name=f"{text}y", description=f"{text}z", project_key=text
            )
        ],
        at=LATER,
    )
    filled.failure(f"{text}/{text}x")
    filled.store.close()


def strict_html(html: str, *, fragment: bool = False) -> Any:
    """Parse as a browser would, and fail at the first thing that is no HTML."""
    html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    tree = parser.parseFragment(html) if fragment else parser.parse(html)
    assert not parser.errors, [(place, error, told) for place, error, told in parser.errors[:3]]
    return tree
