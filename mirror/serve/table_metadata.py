"""What Datasette is told about a mirror's tables: titles, columns, labels, facets, order.

Facets are on few columns, each with few values or an index, so that they stay within Datasette's time limits
at 100,000 rows; the order of a table is one that an index gives.
"""

from copy import deepcopy
from typing import Any

_MOMENT = "UTC, YYYY-MM-DDTHH:MM:SS.ffffffZ: text order is time order"
_TARGET = {
    "target_hash": "commit it names, in full",
    "target_date": f"when that commit was made; {_MOMENT}",
    "target_author": "author line of the commit, Name <mail>",
    "target_author_name": "account behind the author, if there is one",
    "target_author_uuid": "that account's uuid",
    "target_message": "message of the commit",
    "target_parents": "hashes of its parents, a JSON list",
}

TABLES: dict[str, dict[str, Any]] = {
    "upstreams": {
        "title": "Upstreams",
        "description": "The Bitbuckets that this mirror copies.",
        "label_column": "name",
        "columns": {
            "kind": "cloud, datacenter, legacy or sandbox",
            "url": "base address of its API",
            "refs": "how branches and tags are mirrored: api, git or none",
        },
    },
    "users": {
        "title": "Users, teams and workspaces",
        "description": "Everybody who owns repositories or is a member of a workspace.",
        "label_column": "username",
        "facets": ["kind", "upstream_id"],
        "columns": {
            "uuid": "the upstream's identity; it survives renaming; id:N where it has numbers, name:... "
            "where it has names alone",
            "username": "the namespace, first half of a full name; for members without one, the nickname",
            "kind": "what owns the namespace: user, team or workspace",
            "is_owner": "1 for whoever owns a namespace, 0 for members alone",
            "deleted_at": "when it was found to be gone; the row stays",
            "gone_reason": "how that was found",
        },
    },
    "members": {
        "title": "Members of workspaces",
        "description": "Who belongs to which workspace, where the upstream tells.",
        "columns": {"permission": "owner, collaborator or member"},
    },
    "repositories": {
        "title": "Repositories",
        "description": "One row per repository; gone ones stay, with the moment and the reason.",
        "label_column": "full_name",
        "sort_desc": "id",
        "facets": ["scm", "is_private", "language", "owner_id"],
        "facet_size": 12,
        "size": 50,
        "columns": {
            "uuid": "the upstream's identity; it survives renaming and transfer; id:N where it has numbers, "
            "name:... where it has names alone",
            "owner_id": "owner of the namespace",
            "slug": "name in addresses, unique within the owner",
            "name": "name as its owner wrote it",
            "full_name": "owner/slug",
            "project_uuid": "id:N where the upstream has numbers",
            "scm": "git or hg",
            "is_private": "1 for private, 0 for public",
            "size": "bytes, as the upstream says",
            "followers_count": "as the upstream says; NULL where it does not",
            "forks_count": "as the upstream says; NULL where it does not",
            "main_branch": "NULL for an empty repository, and where it is not known",
            "fork_policy": "allow_forks, no_public_forks or no_forks",
            "parent_id": "what it was forked from, if that is mirrored",
            "parent_full_name": "what it was forked from, as the upstream named it",
            "created_at": f"when it was made; {_MOMENT}",
            "updated_at": f"when the upstream last saw a push or an edit; {_MOMENT}",
            "first_seen_at": "when the mirror first saw it",
            "last_seen_at": "when a listing last named it",
            "refs_synced_at": "when its branches and tags were last read in full; NULL: never, so it is not "
            "known which there are",
            "refs_stale": "1 where branches and tags are known to be older than updated_at",
            "deleted_at": "when it was found to be gone; the row stays",
            "gone_reason": "how that was found",
            "public_from": "the last of its changes that strangers do not see; 2^63-1 where all are hidden",
        },
        "units": {"size": "B"},
    },
    "projects": {
        "title": "Projects",
        "description": "The projects that repositories are in.",
        "label_column": "key",
        "columns": {
            "uuid": "the upstream's identity; id:N where it has numbers, name:... where it told none",
            "owner_id": "the workspace; on Data Center the project is the workspace",
            "is_private": "1 for private, 0 for public, NULL where the upstream does not tell",
        },
    },
    "branches": {
        "title": "Branches",
        "description": "The branches of every repository and the commits they name.",
        "size": 50,
        "columns": {
            **_TARGET,
            "heads": "open heads of a Mercurial branch, a JSON list; [] once it is closed",
        },
    },
    "tags": {
        "title": "Tags",
        "description": "The tags of every repository and the commits they name.",
        "size": 50,
        "columns": {
            **_TARGET,
            "tagger": "who made an annotated tag",
            "message": "message of an annotated tag",
            "date": f"when an annotated tag was made; {_MOMENT}",
        },
    },
    "followers": {"title": "Followers", "description": "Who follows what, where the upstream tells."},
    "changes": {
        "title": "Changes",
        "description": "What was seen to be created, renamed, moved, deleted, and which refs moved.",
        "sort_desc": "id",
        "size": 50,
        "columns": {
            "at": f"when the mirror saw it; {_MOMENT}",
            "kind": "created, updated, renamed, transferred, made_private, made_public, deleted, restored, "
            "branch_*, tag_*, owner_renamed",
            "ref": "branch or tag",
            "old": "before: a name, a hash, or JSON of the columns that changed",
            "new": "after, alike",
        },
    },
    "sync_runs": {
        "title": "Sync runs",
        "description": "What each run asked, found and failed at.",
        "label_column": "started_at",
        "sort_desc": "id",
        "facets": ["state", "kind", "upstream_id"],
        "columns": {
            "state": "running, complete, incomplete, paused, interrupted or failed",
            "requests": "API requests asked, repeated ones included",
            "git_requests": "git requests asked",
            "slept_seconds": "spent waiting for the budget or for an upstream that was busy",
        },
    },
    "sync_failures": {
        "title": "Failures waiting",
        "description": "What could not be read, and when it is tried again.",
        "sort": "next_try_at",
        "facets": ["kind", "status"],
        "columns": {
            "subject": "what was asked for",
            "status": "HTTP status, where there was an answer",
            "accepted": "1: shown, and nothing is missing by it",
        },
    },
    "cursors": {"title": "Cursors", "description": "Where each stream of an upstream goes on."},
    "request_ledger": {
        "title": "Request ledger",
        "description": "Requests of the rolling hour, counted by second and credential.",
        "columns": {
            "at": "second, since 1970",
            "bucket": "a name of the credential, without its secret",
            "requests": "reserved, which bounds what may still be asked",
            "sent": "of those, how many were sent",
        },
    },
    "recent_changes": {"title": "Recent changes", "description": "Changes with names in place of numbers."},
    "stale_repositories": {
        "title": "Stale repositories",
        "description": "Without a push or an edit for a year.",
    },
    "languages": {"title": "Languages", "description": "Repositories and bytes by language."},
    "freshness": {
        "title": "Freshness",
        "description": "How long ago each repository was looked at.",
        "columns": {"refs": "read, not read yet, or not mirrored"},
    },
}

HIDDEN = (
    "api_tokens",
    "writes",
    "webhook_deliveries",
    "request_limits",
    "seen_refs",
    "search_",
    "_sqlite_migrations",
)
"""The program's own: Datasette hides every table whose name begins so."""

DESCRIPTION = (
    "An offline copy of Bitbucket's users, repositories, branches and tags. "
    'Once it holds private repositories, tables and SQL need a token: <a href="-/mirror-login">log in</a>. '
    'Ready-made <a href="-/questions">questions</a> have a page of their own.'
)


def metadata(databases: list[str]) -> dict[str, Any]:
    """Describe the mirrors among the attached databases; a fresh copy, because Datasette writes into it."""
    if not databases:
        return {}
    tables = {**TABLES, **{name: {"hidden": True} for name in HIDDEN}}
    described = {
        name: {"title": "Bitbucket mirror", "description_html": DESCRIPTION, "tables": deepcopy(tables)}
        for name in databases
    }
    return {"databases": described}
