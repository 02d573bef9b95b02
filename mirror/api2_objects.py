"""The objects of API 2.0 as the mirror makes them from its columns.

The file stores how sent objects differ from these (`mirror.api2_extras`), so they are part of its format: a
change of one would change all objects that are served.
"""

import json
from typing import Any

from mirror.addresses import CLOUD, WEB, Json, escaped, hrefs, segment
from mirror.model import flag, known_uuid


def moment(text: str | None) -> str | None:
    """Format a time as Bitbucket does: with an offset, and always six digits, which some clients need."""
    return None if text is None else f"{text[:-1]}+00:00"


def seconds(text: str | None) -> str | None:
    """Format the date of a commit or a tag as Bitbucket does: without fractions, which git does not store."""
    if text is None or not text.endswith(".000000Z"):
        return moment(text)
    return f"{text[:19]}+00:00"


def account_object(row: Any, api: str, web: str) -> Json:
    """Make an account from an owner's columns; `row` has the fields of `mirror.model.Owner`."""
    identity = segment(known_uuid(row.uuid) or row.username or "")
    is_person = row.kind == "user"
    shaped: Json = {
        "type": "user" if is_person else "team",
        "display_name": row.display_name,
        "uuid": known_uuid(row.uuid),
        "links": hrefs(
            self=f"{api}/{'users' if is_person else 'workspaces'}/{identity}",
            html=f"{web}/{identity}/",
            avatar=row.avatar_url,
        ),
    }
    named = (
        {"nickname": row.nickname, "account_id": row.account_id} if is_person else {"username": row.username}
    )
    return shaped | {key: value for key, value in named.items() if value is not None}


def workspace_object(row: Any, api: str, web: str, *, name: str | None = None) -> Json:
    """Make the short form of a workspace from its owner's columns; `name` is the workspace's."""
    slug = segment(row.username or "")
    return {
        "type": "workspace",
        "uuid": known_uuid(row.uuid),
        "name": name,
        "slug": row.username,
        "links": hrefs(
            self=f"{api}/workspaces/{slug}", html=f"{web}/{slug}/", avatar=f"{web}/workspaces/{slug}/avatar/"
        ),
    }


def repository_object(row: Any, owner: Any, api: str, web: str) -> Json:
    """Make a repository from its columns and its owner's.

    `row` has the fields of `mirror.model.Repository`.
    """
    counted = {name: getattr(row, name) for name in ("followers_count", "forks_count")}
    return {
        "type": "repository",
        "uuid": known_uuid(row.uuid),
        "full_name": row.full_name,
        "name": row.name,
        "slug": row.slug,
        "description": row.description,
        "scm": row.scm,
        "website": row.website,
        **owner_objects(owner, api, web),
        "is_private": bool(row.is_private),
        "project": project_object(row, owner, api, web),
        "fork_policy": row.fork_policy,
        "created_on": moment(row.created_at),
        "updated_on": moment(row.updated_at),
        "size": row.size,
        "language": row.language,
        "has_issues": flag(row.has_issues),
        "has_wiki": flag(row.has_wiki),
        "mainbranch": main_branch_object(row.main_branch, is_hg=row.scm == "hg"),
        "override_settings": {"default_merge_strategy": True, "branching_model": True},
        "enforced_signed_commits": None,
        "parent": parent_object(row, api, web),
        "links": repository_links(row, api, web),
        **{name: value for name, value in counted.items() if value is not None},
    }


def repository_links(row: Any, api: str, web: str) -> Json:
    """Make the links of a repository."""
    name = escaped(row.full_name)
    url, page = f"{api}/repositories/{name}", f"{web}/{name}"
    children = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")
    links = hrefs(
        self=url,
        html=page,
        avatar=row.avatar_url,
        **{child: f"{url}/{child}" for child in children},
        branches=f"{url}/refs/branches",
        tags=f"{url}/refs/tags",
        source=f"{url}/src",
        issues=f"{url}/issues" if row.has_issues else None,
    )
    links["clone"] = [
        {"name": kind, "href": _web(address, web)}
        for kind, address in (("https", row.clone_https), ("ssh", row.clone_ssh))
        if address is not None
    ]
    return links


def owner_objects(owner: Any, api: str, web: str) -> Json:
    """Make what all repositories of an owner have in common."""
    workspace = workspace_object(owner, api, web, name=owner.display_name)
    return {"owner": account_object(owner, api, web), "workspace": workspace}


def _web(address: str, web: str) -> str:
    """Write an address at Bitbucket Cloud as extras do, if `web` is the mark for it."""
    return address.replace(CLOUD, web, 1) if web == WEB and address.startswith(f"{CLOUD}/") else address


def main_branch_object(name: str | None, *, is_hg: bool) -> Json | None:
    """Make the main branch of a repository."""
    return None if name is None else {"type": "named_branch" if is_hg else "branch", "name": name}


def project_object(row: Any, owner: Any, api: str, web: str) -> Json | None:
    """Make the project that a repository is in."""
    if row.project_key is None:
        return None
    slug, key = segment(owner.username or ""), segment(row.project_key)
    page = f"{web}/{slug}/workspace/projects/{key}"
    return {
        "type": "project",
        "key": row.project_key,
        "uuid": known_uuid(row.project_uuid),
        "name": row.project_name,
        "links": hrefs(self=f"{api}/workspaces/{slug}/projects/{key}", html=page, avatar=f"{page}/avatar/32"),
    }


def parent_object(row: Any, api: str, web: str) -> Json | None:
    """Make the repository that another one was forked from."""
    full_name = row.parent_full_name
    if full_name is None:
        return None
    name = escaped(full_name)
    return {
        "type": "repository",
        "full_name": full_name,
        "name": full_name.partition("/")[2],
        "uuid": known_uuid(row.parent_uuid),
        "links": hrefs(self=f"{api}/repositories/{name}", html=f"{web}/{name}"),
    }


def short_repository_object(row: Any, api: str, web: str) -> Json:
    """Make a repository as other objects embed it, without slug and owner."""
    name = escaped(row.full_name)
    return {
        "type": "repository",
        "uuid": known_uuid(row.uuid),
        "full_name": row.full_name,
        "name": row.name,
        "links": hrefs(self=f"{api}/repositories/{name}", html=f"{web}/{name}", avatar=row.avatar_url),
    }


MERGE_STRATEGIES: Json = {
    "default_merge_strategy": "merge_commit",
    "merge_strategies": ["merge_commit", "squash", "fast_forward"],
}


def ref_object(repository: Any, row: Any, api: str, web: str) -> Json:
    """Make a branch or a tag; `row` has the fields of `mirror.model.Ref`, its lists as lists or as JSON."""
    full_name = escaped(repository.full_name)
    url, page = f"{api}/repositories/{full_name}", f"{web}/{full_name}"
    is_tag, heads = row.kind == "tag", _listed(row.heads)
    shaped: Json = {
        "name": row.name,
        "type": "tag" if is_tag else "branch" if heads is None else "named_branch",
        "target": commit_object(repository, row, api, web),
        "links": ref_links(url, page, row.name, is_tag=is_tag),
    }
    if is_tag:
        return shaped | {"message": row.message, "date": seconds(row.date), "tagger": tagger_object(row)}
    if heads is not None:
        shaped["heads"] = [short_commit(url, page, one) for one in heads]
    return shaped | MERGE_STRATEGIES


def ref_links(url: str, page: str, name: str, *, is_tag: bool) -> Json:
    """Make the links of a ref of the repository at `url`, with its page for people at `page`."""
    name = escaped(name)
    return {
        "self": {"href": f"{url}/refs/{'tags' if is_tag else 'branches'}/{name}"},
        "commits": {"href": f"{url}/commits/{name}"},
        "html": {"href": f"{page}/{'commits/tag' if is_tag else 'branch'}/{name}"},
    }


def tagger_object(row: Any) -> Json | None:
    """Make the tagger of a tag."""
    return None if row.tagger is None else {"type": "author", "raw": row.tagger}


def commit_object(repository: Any, row: Any, api: str, web: str) -> Json:
    """Make the commit that a ref points to."""
    full_name = escaped(repository.full_name)
    url, page = f"{api}/repositories/{full_name}", f"{web}/{full_name}"
    parents = _listed(row.target_parents)
    return {
        **short_commit(url, page, row.target_hash),
        "date": seconds(row.target_date),
        "author": author_object(row, api, web),
        "message": row.target_message,
        "parents": None if parents is None else [short_commit(url, page, one) for one in parents],
        "repository": short_repository_object(repository, api, web),
    }


def author_object(row: Any, api: str, web: str) -> Json | None:
    """Make the author of the commit of a ref."""
    name, uuid = row.target_author_name, row.target_author_uuid
    if row.target_author is None and name is None and uuid is None:
        return None
    shaped: Json = {"type": "author", "raw": row.target_author}
    if name is not None or uuid is not None:
        shaped["user"] = {"type": "user", "display_name": name}
        if uuid is not None:
            one = segment(uuid)
            links = hrefs(self=f"{api}/users/{one}", html=f"{web}/{one}/")
            shaped["user"] |= {"uuid": uuid, "links": links}
    return shaped


def short_commit(url: str, page: str, name: str) -> Json:
    """Make a commit of which only the hash is known."""
    return {"type": "commit", "hash": name, "links": commit_links(url, page, name)}


def commit_links(url: str, page: str, name: str) -> Json:
    """Make the links of a commit, as `ref_links` does for refs."""
    return {"self": {"href": f"{url}/commit/{name}"}, "html": {"href": f"{page}/commits/{name}"}}


def _listed(value: Any) -> list[str] | None:
    if value is None:
        return None
    return list(json.loads(value)) if isinstance(value, str) else list(value)
