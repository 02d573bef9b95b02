"""What moved, as a page that can be filtered; the feed reads the same addresses."""

import sqlite3
from typing import Any

from datasette.utils.asgi import Response

from mirror.serve.pages.reads.changes import KINDS, Wanted, changes
from mirror.serve.pages.reads.rows import Row, rows
from mirror.serve.pages.visit import Visit
from mirror.times import moment_of, to_text

PER_PAGE = 50
FILTERS = ("kind", "owner", "upstream", "ref", "repository", "since", "until")


async def history(visit: Visit) -> Response:
    """GET /-/changes: what was created, edited, renamed, moved, deleted, and which refs moved."""
    said = said_of(visit)
    wanted, problems = wanted_of(visit, said)

    def work(connection: sqlite3.Connection) -> tuple[list[Row], list[Row]]:
        return changes(connection, visit.caller, wanted), rows(
            connection, "SELECT name FROM upstreams ORDER BY id"
        )

    found, upstreams = await visit.read(work)
    shown = found[:PER_PAGE]
    context: dict[str, Any] = {
        "changes": shown,
        "said": said,
        "problems": problems,
        "kinds": KINDS,
        "upstreams": [row["name"] for row in upstreams],
        "older": shown[-1]["id"] if len(found) > PER_PAGE else None,
        "is_later_page": wanted.before is not None,
    }
    return await visit.page("mirror_changes.html", context)


def said_of(visit: Visit) -> dict[str, str]:
    """Read the filters that an address sets."""
    said = {name: visit.parameters.get(name, "").strip()[:300] for name in FILTERS}
    return {name: value for name, value in said.items() if value}


def wanted_of(
    visit: Visit, said: dict[str, str], *, limit: int = PER_PAGE, paged: bool = True
) -> tuple[Wanted, list[str]]:
    """Say what is asked for; what cannot be read is told and left out."""
    problems, moments = list[str](), dict[str, str]()
    for name in ("since", "until"):
        try:
            moments[name] = to_text(moment_of(said[name], visit.now)) if name in said else ""
        except (ValueError, OverflowError):
            problems.append(f"“{said[name][:60]}” is no moment; write 2026-11-01, 2026-11-01T10:00 or 24h.")
    number = said.get("repository", "")
    wanted = Wanted(
        kinds=_kinds(said.get("kind", "")),
        owner=said.get("owner", ""),
        upstream=said.get("upstream", ""),
        ref=said.get("ref", ""),
        repository_id=int(number) if number.isascii() and number.isdecimal() and len(number) < 16 else None,
        since=moments.get("since", ""),
        until=moments.get("until", ""),
        before=visit.number("before", 0, 2**62) or None if paged else None,
        limit=limit,
    )
    return wanted, problems


def _kinds(said: str) -> tuple[str, ...]:
    """Read a kind, or a group of kinds."""
    if said in KINDS:
        return KINDS[said]
    return (said,) if any(said in kinds for kinds in KINDS.values()) else ()
