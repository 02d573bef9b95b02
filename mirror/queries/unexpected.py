"""Unexpected changes, which somebody wants to hear of, each kind with a name.

An index has the rare kinds of changes, another one the forced moves of main branches; their conditions must
stand in the statement as they were made.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence

from mirror.queries.rows import fetch
from mirror.store.history import RARE_KINDS
from mirror.store.refs import PSEUDO_TAG

_RARE = f"c.kind IN ({RARE_KINDS})"
_IS_ITS_COMMIT = "t.repository_id = c.repository_id AND t.target_hash = c.old"
_NAMED_ELSEWHERE = f"""(EXISTS (SELECT 1 FROM branches t WHERE {_IS_ITS_COMMIT})
    OR EXISTS (SELECT 1 FROM tags t WHERE {_IS_ITS_COMMIT} AND t.name <> '{PSEUDO_TAG}'))"""

UNEXPECTED: Mapping[str, str] = {
    "tag-moved": f"({_RARE} AND c.kind = 'tag_moved')",
    "tag-gone": f"({_RARE} AND c.kind = 'tag_deleted')",
    "main-forced": "(c.forced = 1 AND c.is_main = 1)",
    "branch-lost": f"({_RARE} AND c.kind = 'branch_deleted' AND NOT {_NAMED_ELSEWHERE})",
    "repository-gone": f"({_RARE} AND c.kind = 'deleted')",
    "made-public": f"({_RARE} AND c.kind = 'made_public')",
    "transferred": f"({_RARE} AND c.kind = 'transferred')",
}
"""Conditions in SQL on a change `c` of a repository `r`, by the names that alerts and pages use."""

TITLES: Mapping[str, str] = {
    "tag-moved": "Tags that moved",
    "tag-gone": "Tags that vanished",
    "main-forced": "Main branches that were force-pushed",
    "branch-lost": "Branches deleted, whose commit no other branch or tag names today",
    "repository-gone": "Repositories gone",
    "made-public": "Repositories made public",
    "transferred": "Repositories transferred",
}
"""What each is called on pages."""


def lines_of_run(
    connection: sqlite3.Connection,
    name: str,
    upstream: str,
    changes: tuple[int, int],
    forced: Sequence[int] = (),
) -> list[str]:
    """Say in a line each what a run of an upstream, and webhooks since the run before it, found of one kind.

    `changes` are the numbers of the last change before and the last one of them. `forced` are earlier ones
    of which the run found that they were forced.
    """

    def among(condition: str) -> str:
        return f"""SELECT c.id, r.full_name, c.kind, c.ref, substr(c.old, 1, 40), substr(c.new, 1, 40)
            FROM changes c CROSS JOIN repositories r ON r.id = c.repository_id
            CROSS JOIN upstreams up ON up.id = r.upstream_id
            WHERE up.name = :upstream AND {UNEXPECTED[name]} AND {condition}"""

    after, until = changes
    found = fetch(
        connection,
        f"""{among("c.id > :after AND c.id <= :until")} UNION ALL
            {among("c.id <= :after AND c.id IN (SELECT value FROM json_each(:forced))")} ORDER BY 1""",
        {"upstream": upstream, "after": after, "until": until, "forced": json.dumps(forced)},
    )
    return [
        " ".join(filter(None, (full_name, kind.replace("_", " "), ref, f"{old or ''} -> {new or ''}")))
        for _, full_name, kind, ref, old, new in found
    ]
