"""Rows in the shapes of API 1.0: pure functions, without database or clock.

Sources: Bitbucket's own page on the `repositories` resource, and recorded answers. `docs/api-1.0.md`
describes each key.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

from mirror.model import flag
from mirror.queries.rows import AccountRow, ChangeRow, RefRow, RepositoryRow
from mirror.serve.exchange import Json

# Each object has all keys that Bitbucket sent between 2010 and 2019, so that clients of any age find theirs.
# A value that the mirror cannot know is null, or the constant that Bitbucket always sent. Where the form of a
# value changed over the years, the latest is served.
AMSTERDAM = ZoneInfo("Europe/Amsterdam")


def local(moment: str | None) -> str | None:
    """Format a time as in changesets and events: ``2012-02-20 22:29:16``, local time of Amsterdam."""
    if moment is None:
        return None
    return _read(moment).astimezone(AMSTERDAM).strftime("%Y-%m-%d %H:%M:%S")


def local_millis(moment: str | None) -> str | None:
    """Format a time as in repositories since 2014: ``2012-02-20T22:29:16.000``, local time of Amsterdam."""
    if moment is None:
        return None
    return _read(moment).astimezone(AMSTERDAM).replace(tzinfo=None).isoformat(timespec="milliseconds")


def utc(moment: str | None) -> str | None:
    """Format a time as in the `utc` keys: ``2012-02-20 21:29:16+00:00``."""
    return None if moment is None else f"{moment[:10]} {moment[11:19]}+00:00"


def _read(moment: str) -> datetime:
    # Its form has a fixed width, so this is faster than `times.from_text`.
    return datetime.fromisoformat(moment[:26]).replace(tzinfo=UTC)


_MAIL = re.compile(r"\s*<[^<>]*>\s*$")

# The event of 1.0 for each kind of change that has one. A new fork has the event `fork`.
EVENTS = {
    "created": "create",
    "restored": "create",
    "deleted": "delete",
    "branch_created": "pushed",
    "branch_moved": "pushed",
    "branch_deleted": "pushed",
    "tag_created": "pushed",
    "tag_moved": "pushed",
    "tag_deleted": "pushed",
}


def repository(row: RepositoryRow, parent: RepositoryRow | None, *, state: str = "available") -> Json:
    """Shape one repository, with its parent inside if it has one."""
    shaped = _plain_repository(row, state)
    if parent is not None:
        shaped["fork_of"] = _plain_repository(parent, "available")
    elif row.unmirrored_parent is not None:
        shaped["fork_of"] = _named_only(row.unmirrored_parent)
    return shaped


def _plain_repository(row: RepositoryRow, state: str) -> Json:
    """Shape a repository without its parent, as inside `fork_of`."""
    policy = row.fork_policy
    return {
        "scm": row.scm,
        "has_wiki": flag(row.has_wiki),
        "last_updated": local_millis(row.updated_at),
        "no_forks": policy and policy == "no_forks",
        "creator": None,
        "forks_count": row.forks_count,
        "created_on": local_millis(row.created_at),
        "owner": row.namespace,
        "logo": row.avatar_url,
        "email_mailinglist": "",
        "is_mq": False,
        "size": row.size,
        "read_only": False,
        "fork_of": None,
        "mq_of": None,
        "followers_count": row.followers_count,
        "state": state,
        "utc_created_on": utc(row.created_at),
        "website": row.website,
        "description": row.description,
        "has_issues": flag(row.has_issues),
        "is_fork": bool(row.is_fork),
        "slug": row.slug,
        "is_private": bool(row.is_private),
        "name": row.name,
        "language": row.language,
        "utc_last_updated": utc(row.updated_at),
        "email_writers": True,
        "main_branch": row.main_branch,
        "no_public_forks": policy and policy in ("no_public_forks", "no_forks"),
        "resource_uri": repository_uri(row.namespace, row.slug),
    }


def _named_only(full_name: str) -> Json:
    """Shape a parent that is known only by its name."""
    owner, _, slug = full_name.partition("/")
    return {
        "owner": owner,
        "slug": slug,
        "name": slug,
        "fork_of": None,
        "resource_uri": repository_uri(owner, slug),
    }


def search_item(row: RepositoryRow) -> Json:
    """Shape one result of a search."""
    return {
        "website": row.website,
        "scm": row.scm,
        "name": row.name,
        "followers_count": row.followers_count,
        "owner": row.namespace,
        "logo": row.avatar_url,
        "resource_uri": repository_uri(*row.full_name.split("/", 1)),
        "slug": row.slug,
        "description": row.description,
    }


def repository_uri(owner: str, slug: str) -> str:
    """Return the path of a repository, in the form used since 2012."""
    return f"/1.0/repositories/{quote(owner)}/{quote(slug)}"


def user(row: AccountRow) -> Json:
    """Shape a user or a team."""
    first, last = row.first_name, row.last_name
    is_team = row.kind != "user"
    if first is None and last is None and row.display_name is not None:  # as upstreams of 2.0 send it
        first, last = row.display_name.strip(), ""
        if not is_team and " " in first:
            first, _, last = first.rpartition(" ")
    username = row.username or ""
    return {
        "username": username,
        "first_name": first,
        "last_name": last,
        "display_name": row.display_name,
        "is_team": is_team,
        "is_staff": False,
        "avatar": row.avatar_url,
        "resource_uri": f"/1.0/users/{quote(username)}",
    }


def changeset(row: RefRow, branch: str | None) -> Json:
    """Shape the commit of a ref."""
    parents = row.target_parents
    # Authors without an account are named by their author line without the mail address.
    author = row.target_author_name or (row.target_author and _MAIL.sub("", row.target_author))
    return {
        "node": row.target_hash[:12],
        "files": [],
        "raw_author": row.target_author,
        "utctimestamp": utc(row.target_date),
        "author": author,
        "timestamp": local(row.target_date),
        "raw_node": row.target_hash,
        "parents": None if parents is None else [parent[:12] for parent in json.loads(parents)],
        "branch": branch,
        "message": row.target_message,
        "revision": None,  # a local number of Mercurial
        "size": -1,
    }


def branches(rows: Iterable[RefRow]) -> Json:
    """Shape the branches of a repository, by name."""
    return {row.name: changeset(row, row.name) for row in rows}


def tags(rows: Iterable[RefRow]) -> Json:
    """Shape the tags of a repository, by name. The branch of a tagged commit is not known."""
    return {row.name: {**changeset(row, None), "branches": []} for row in rows}


def branches_tags(branch_rows: Iterable[RefRow], tag_rows: Iterable[RefRow], main: str | None) -> Json:
    """Shape branches and tags in short. Only the main branch has the key `mainbranch`."""
    return {
        "branches": [
            {
                "changeset": row.target_hash,
                "heads": [row.target_hash] if row.heads is None else json.loads(row.heads),
                "name": row.name,
                **({"mainbranch": True} if row.name == main else {}),
            }
            for row in branch_rows
        ],
        "tags": [{"changeset": row.target_hash, "name": row.name} for row in tag_rows],
    }


def event(row: ChangeRow, about: RepositoryRow, shaped: Json) -> Json:
    """Shape a change as an event; `shaped` is the shape of its repository. Who pushed is not known."""
    kind = EVENTS[row.kind]
    is_push = kind == "pushed"
    if row.kind == "created" and about.is_fork:
        kind = "fork"
    ref, _, verb = row.kind.partition("_")  # such as branch_moved
    return {
        "node": row.new[:12] if is_push and row.new else None,
        "description": f"{ref} {row.ref} {verb}" if is_push else None,
        "repository": shaped,
        "created_on": local(row.at),
        "user": None,
        "utc_created_on": utc(row.at),
        "event": kind,
    }


def overview_item(row: RepositoryRow) -> Json:
    """Shape one item of `user/repositories/overview`."""
    return {
        "owner": row.namespace,
        "name": row.name,
        "slug": row.slug,
        "is_private": bool(row.is_private),
        "avatar": row.avatar_url,
    }


def dashboard_item(row: RepositoryRow, parents: Mapping[int, RepositoryRow]) -> Json:
    """Shape one item of `user/repositories/dashboard`; `fork` is false or the path of the parent."""
    mirrored = parents.get(row.parent_id or 0)
    parent = mirrored.full_name if mirrored else row.unmirrored_parent
    return {
        "website": row.website,
        "fork": f"/{parent}" if parent else False,
        "name": row.name,
        "scm": row.scm,
        "absolute_url": f"/{row.full_name}/",
        "_pk": row.id,
        "owner": row.namespace,
        "slug": row.slug,
        "is_private": bool(row.is_private),
    }


def privilege(permission: str | None) -> str | None:
    """Return the privilege of 1.0 for a permission: the owner of a workspace is its admin."""
    if permission is None:
        return None
    return "admin" if permission in ("owner", "admin") else "collaborator"
