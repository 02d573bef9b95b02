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


def fill_hostile(path: Path, *texts: str) -> None:
    """Put texts wherever somebody else's text can stand; the first is of the repository and the user 1."""
    filled = FixtureDb(path)
    for number, text in enumerate(texts):
        _fill(filled, text, f"{{it{number}}}", f"{{by{number}}}", f"a/fork{number}")
    filled.store.close()


def _fill(filled: FixtureDb, text: str, uuid: str, owner_uuid: str, fork: str) -> None:
    by = owner(text, uuid=owner_uuid, display_name=text)
    said: dict[str, Any] = {
        "uuid": uuid,
        "name": text,
        "description": text,
        "website": text,
        "language": text,
    }
    filled.repositories([repository(f"{text}/{text}", by, **said)], first=True)
    filled.repositories([repository(fork, parent_uuid=uuid, parent_full_name="x")], first=True)
    ref: dict[str, Any] = {"target_message": text, "target_author": text}
    filled.refs(fork, [hg_ref("branch", "b", "1")])
    for digit in "12":
        filled.refs(
            f"{text}/{text}", [hg_ref("branch", text, digit, **ref), hg_ref("tag", text, digit, **ref)]
        )
    filled.repositories(
        [
            repository(
                f"{text}/{text}x", by, uuid=uuid, name=f"{text}y", description=f"{text}z", project_key=text
            )
        ],
        at=LATER,
    )
    filled.failure(f"{text}/{text}x")


def strict_html(html: str, *, fragment: bool = False) -> Any:
    """Parse as a browser would, and fail at the first thing that is no HTML."""
    html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed")
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    tree = parser.parseFragment(html) if fragment else parser.parse(html)
    assert not parser.errors, [(place, error, told) for place, error, told in parser.errors[:3]]
    return tree
