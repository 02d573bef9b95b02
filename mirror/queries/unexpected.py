"""What moved that should not: changes that one wants to hear of, each kind by a name.

An index has the rare kinds of changes; its condition must stand in the statement as it was made.
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
    "main-forced": "(c.forced = 1 AND c.kind = 'branch_moved' AND c.ref = r.main_branch)",
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
    connection: sqlite3.Connection, name: str, run_id: int, forced: Sequence[int] = ()
) -> list[str]:
    """Say in a line each what a run found of one kind, and webhooks since the run before it.

    `forced` are the changes of earlier runs too of which it found that they were forced.
    """
    found = fetch(
        connection,
        f"""SELECT r.full_name, c.kind, c.ref, substr(c.old, 1, 40), substr(c.new, 1, 40)
            FROM sync_runs s CROSS JOIN changes c JOIN repositories r ON r.id = c.repository_id
            WHERE s.id = :run AND r.upstream_id = s.upstream_id AND {UNEXPECTED[name]}
                AND (c.run_id = s.id OR c.id IN (SELECT value FROM json_each(:forced))
                    OR (c.run_id IS NULL AND c.at > coalesce((SELECT max(finished_at)
                        FROM sync_runs WHERE upstream_id = s.upstream_id AND id < s.id), '')))
            ORDER BY c.id""",
        {"run": run_id, "forced": json.dumps(forced)},
    )
    return [
        " ".join(filter(None, (full_name, kind.replace("_", " "), ref, f"{old or ''} -> {new or ''}")))
        for full_name, kind, ref, old, new in found
    ]
