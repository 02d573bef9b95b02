"""Datasette's metadata of a mirror's tables: titles, columns, labels, facets, order.

Only columns with few values or an index have facets, and tables are sorted only by an index. A facet reads
its whole table, so a large file shows facets only if the address requests them: `?_facet=scm`.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_MOMENT = "UTC, YYYY-MM-DDTHH:MM:SS.ffffffZ: text order is time order"
_TARGET = {
    "target_hash": "full hash of the commit it points to",
    "target_date": f"when that commit was made; {_MOMENT}",
    "target_author": "author line of the commit, Name <mail>",
    "target_author_name": "display name of the author's account, if there is one",
    "target_author_uuid": "that account's uuid",
    "target_message": "message of the commit",
    "target_parents": "hashes of its parents, a JSON list",
}

TABLES: dict[str, dict[str, Any]] = {
    "upstreams": {
        "title": "Upstreams",
        "description": "The Bitbucket servers that this mirror copies.",
        "label_column": "name",
        "columns": {
            "kind": "cloud, datacenter, legacy or sandbox",
            "url": "base address of its API",
            "refs": "how branches and tags are mirrored: api, git or none",
        },
    },
    "users": {
        "title": "Users, teams and workspaces",
        "description": "All who own repositories or are members of a workspace.",
        "label_column": "username",
        "facets": ["kind", "upstream_id"],
        "columns": {
            "uuid": "the upstream's identity, stable across renames; id:N if it has only numbers, name:... "
            "if it has only names",
            "username": "the namespace, first half of a full name; for members without one, the nickname",
            "kind": "what owns the namespace: user, team or workspace",
            "is_owner": "1 for the owner of a namespace, 0 for a mere member",
            "deleted_at": "when it was found to be gone; the row stays",
            "gone_reason": "how that was found",
        },
    },
    "members": {
        "title": "Members of workspaces",
        "description": "Who belongs to which workspace, if the upstream reports it.",
        "columns": {"permission": "owner, collaborator or member"},
    },
    "repositories": {
        "title": "Repositories",
        "description": "One row for each repository. Those that are gone stay, with the time and the reason.",
        "label_column": "full_name",
        "sort_desc": "id",
        "facets": ["scm", "is_private", "language", "owner_id"],
        "facet_size": 12,
        "size": 50,
        "columns": {
            "uuid": "the upstream's identity, stable across renames and transfers; id:N if it has only "
            "numbers, name:... if it has only names",
            "owner_id": "owner of the namespace",
            "slug": "name in addresses, unique within the owner",
            "name": "name as the owner wrote it",
            "full_name": "owner/slug",
            "project_uuid": "id:N if the upstream has only numbers",
            "scm": "git or hg",
            "is_private": "1 for private, 0 for public",
            "size": "bytes, as the upstream reports",
            "followers_count": "as the upstream reports; NULL: unknown",
            "forks_count": "as the upstream reports; NULL: unknown",
            "main_branch": "NULL for an empty repository, and if it is not known",
            "fork_policy": "allow_forks, no_public_forks or no_forks",
            "parent_id": "the repository it was forked from, if that is mirrored",
            "parent_full_name": "name of the repository it was forked from, by the upstream",
            "created_at": f"when it was created; {_MOMENT}",
            "updated_at": f"when the upstream last saw a push or an edit; {_MOMENT}",
            "first_seen_at": "when the mirror first saw it",
            "last_seen_at": "when a listing last contained it",
            "refs_synced_at": "when its branches and tags were last read in full; NULL: never",
            "refs_known_since": "since when its past branches and tags are known; NULL: not recorded",
            "refs_stale": "1 if its branches and tags have to be read again",
            "deleted_at": "when it was found to be gone; the row stays",
            "gone_reason": "how that was found",
            "public_from": "id of the last change that strangers do not see; 2^63-1: all are hidden",
        },
        "units": {"size": "B"},
    },
    "projects": {
        "title": "Projects",
        "description": "The projects that repositories are in.",
        "label_column": "key",
        "columns": {
            "uuid": "the upstream's identity; id:N if it has numbers, name:... if it sent none",
            "owner_id": "the workspace; on Data Center the project is the workspace",
            "is_private": "1 for private, 0 for public, NULL where the upstream does not tell",
        },
    },
    "branches": {
        "title": "Branches",
        "description": "The branches of all repositories and the commits they point to.",
        "size": 50,
        "columns": {
            **_TARGET,
            "heads": "open heads of a Mercurial branch, a JSON list; [] once it is closed",
        },
    },
    "tags": {
        "title": "Tags",
        "description": "The tags of all repositories and the commits they point to.",
        "size": 50,
        "columns": {
            **_TARGET,
            "tagger": "who made an annotated tag",
            "message": "message of an annotated tag",
            "date": f"when an annotated tag was made; {_MOMENT}",
        },
    },
    "followers": {"title": "Followers", "description": "Who follows what, if the upstream reports it."},
    "changes": {
        "title": "Changes",
        "description": "What the mirror saw change: repositories, owners, branches and tags.",
        "sort_desc": "id",
        "size": 50,
        "columns": {
            "at": f"when the mirror saw it; {_MOMENT}",
            "kind": "created, updated, renamed, transferred, made_private, made_public, deleted, restored, "
            "branch_*, tag_*, owner_renamed",
            "ref": "branch or tag",
            "old": "before: a name, a hash, or JSON of the columns that changed",
            "new": "after, in the same form",
            "forced": "1 if the push is known to have been forced, 0 if it was not; NULL: unknown",
            "old_date": "when the former commit of the ref was made; NULL: not recorded",
            "is_main": "1: the branch that moved was the main one then",
            "previous_look": "when the mirror looked before, and it had not changed; NULL: not recorded",
        },
    },
    "measures": {
        "title": "Former sizes",
        "description": "What moves with every push, as it was until the mirror saw that it had changed.",
        "columns": {
            "until": f"when the mirror saw other values; {_MOMENT}",
            "size": "bytes, as the upstream reported",
            "updated_at": "when the upstream had last seen a push or an edit",
        },
    },
    "sync_runs": {
        "title": "Sync runs",
        "description": "The requests, results and failures of each run.",
        "label_column": "started_at",
        "sort_desc": "id",
        "facets": ["state", "kind", "upstream_id"],
        "columns": {
            "state": "running, complete, incomplete, paused, interrupted or failed",
            "requests": "API requests, including repeated ones",
            "git_requests": "git requests",
            "slept_seconds": "time spent waiting for the budget or for a busy upstream",
        },
    },
    "sync_failures": {
        "title": "Failures to be retried",
        "description": "What could not be read, and when the mirror tries again.",
        "sort": "next_try_at",
        "facets": ["kind", "status"],
        "columns": {
            "subject": "what the request was for",
            "status": "HTTP status, if there was an answer",
            "accepted": "1: known and accepted, so it does not count as missing",
        },
    },
    "cursors": {"title": "Cursors", "description": "Where the next run continues, for each upstream."},
    "request_ledger": {
        "title": "Request ledger",
        "description": "Requests of the last hour, counted by second and credential.",
        "columns": {
            "at": "seconds since 1970",
            "bucket": "name of the credential, without its secret",
            "requests": "requests that were reserved; these count against the budget",
            "sent": "how many of these were sent",
        },
    },
    "recent_changes": {"title": "Recent changes", "description": "Changes with names instead of ids."},
    "stale_repositories": {
        "title": "Stale repositories",
        "description": "Without a push or an edit for a year.",
    },
    "languages": {"title": "Languages", "description": "Repositories and bytes by language."},
    "freshness": {
        "title": "Freshness",
        "description": "How long ago each repository was read.",
        "columns": {"refs": "read, not read yet, or not mirrored"},
    },
}

# Internal tables: Datasette hides every table whose name begins so.
HIDDEN = (
    "mirror_meta",
    "export",
    "api_tokens",
    "writes",
    "webhook_deliveries",
    "extras",
    "request_limits",
    "seen_refs",
    "search_",
    "_sqlite_migrations",
)


DESCRIPTION = (
    "An offline copy of Bitbucket's users, repositories, branches and tags. "
    'Once it holds private repositories, tables and SQL need a token: <a href="-/mirror-login">log in</a>. '
    '<a href="-/questions">Questions</a> lists ready-made queries.'
)


# The size in bytes above which no facets are shown by default: each facet of repositories takes 0.1 s.
MOST_BYTES_FACETED = 256 * 1024 * 1024


def metadata(databases: Mapping[str, int]) -> dict[str, Any]:
    """Return the metadata of mirrors; `databases` maps their names to their sizes in bytes."""
    described = dict[str, Any]()
    for name, size in databases.items():
        # A copy, because Datasette changes it.
        tables = deepcopy({**TABLES, **{table: {"hidden": True} for table in HIDDEN}})
        for table in tables.values():
            if size > MOST_BYTES_FACETED:
                table.pop("facets", None)
        described[name] = {"title": "Bitbucket mirror", "description_html": DESCRIPTION, "tables": tables}
    return {"databases": described} if described else {}
