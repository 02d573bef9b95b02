"""The objects of API 2.0 as the mirror makes them from its columns, and how sent ones differ: their extras.

With an extra, the mirror serves exactly the object that was sent, including keys of former years and unknown
ones. In an extra, a mapping contains the keys that differ, ``[value]`` is a different value, and ``[]`` is a
key that was not sent. The file stores extras, so the objects made here are part of its format: a change of
one would change all objects that are served.
"""

import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from mirror.addresses import CLOUD, WEB, Json, escaped, hrefs, localised, segment
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


def difference(told: Json, ours: Json, *, are_texts: bool = False) -> Json:
    """Return the changes that turn our object into the one that was sent.

    `are_texts` says that all values within ours are texts.
    """
    extra: Json = {}
    known = 0
    for key, value in told.items():
        own = ours.get(key, extra)  # `extra` itself stands for a missing key
        if own is extra:
            extra[key] = [value]
            continue
        known += 1
        if are_texts and value == own:  # which saves a third; among other values, 1 would equal True
            continue
        changes: Any
        if value.__class__ is not own.__class__:
            changes = [value]
        elif value.__class__ is dict:
            changes = difference(value, own, are_texts=are_texts or key == "links")
        else:
            changes = None if value == own else [value]
        if changes:
            extra[key] = changes
    if known < len(ours):
        extra.update((key, []) for key in ours if key not in told)
    return extra


def changed(ours: Json, extra: Json, api: str, web: str) -> Json:
    """Apply an extra to an object, and return the result."""
    shaped = dict(ours)
    for key, change in extra.items():
        if change.__class__ is dict:
            inner = shaped.get(key)
            shaped[key] = changed(inner if isinstance(inner, dict) else {}, change, api, web)
            if key == "links":
                shaped[key].pop("mirror", None)  # the page of another mirror, which is the upstream
        elif change:
            shaped[key] = localised(change[0], api, web, key)
        else:
            shaped.pop(key, None)
    return shaped


Scheme = Mapping[str, Any]
_HREF: Scheme = {"href": {}, "name": {}}


def _keys(names: str, **inner: Scheme) -> Scheme:
    return {**{name: {} for name in names.split()}, **inner}


def _links(names: str) -> Scheme:
    return dict.fromkeys(names.split(), _HREF)


_ACCOUNT = _keys(
    "type display_name uuid username nickname account_id created_on",
    links=_links("self html avatar repositories followers following snippets hooks members projects owners"),
)
_WORKSPACE = _keys(
    "type uuid name slug created_on",
    links=_links("self html avatar members owners projects repositories snippets"),
)
_SHORT = _keys("type uuid full_name name", links=_links("self html avatar"))
_COMMIT = _keys(
    "type hash date message",
    author=_keys("type raw", user=_ACCOUNT),
    links=_links("self html comments patch diff approve statuses"),
    repository=_SHORT,
)
PUBLIC: Mapping[str, Scheme] = {
    "repository": _keys(
        "type uuid full_name name slug description scm website is_private fork_policy created_on updated_on "
        "size language has_issues has_wiki enforced_signed_commits followers_count forks_count",
        mainbranch=_keys("type name"),
        override_settings=_keys("default_merge_strategy branching_model"),
        parent=_SHORT,
        owner=_ACCOUNT,
        workspace=_WORKSPACE,
        project=_keys("type key uuid name", links=_links("self html avatar")),
        links=_links(
            "self html avatar pullrequests commits forks watchers downloads hooks branches tags source "
            "issues clone"
        ),
    ),
    "ref": _keys(
        "name type message date default_merge_strategy merge_strategies",
        target={**_COMMIT, "parents": _COMMIT},
        heads=_COMMIT,
        tagger=_keys("type raw date", user=_ACCOUNT),
        links=_links("self html commits"),
    ),
    "account": _ACCOUNT,
    "workspace": _WORKSPACE,
    "repository-1.0": _keys(
        "no_forks no_public_forks email_writers email_mailinglist read_only creator created_on last_updated"
    ),
    "ref-1.0": _keys("parents revision branch branches size", files=_keys("type file")),
}
"""By kind of extra: the keys that strangers may see although an authenticated crawl read them.

Strangers see other keys only if an anonymous crawl read them.
"""


def public_part(extra: Json, scheme: Scheme) -> Json:
    """Return the part of an extra that everybody may see."""
    kept: Json = {}
    for key, change in extra.items():
        if key not in scheme:
            continue
        if change.__class__ is dict:
            kept[key] = public_part(change, scheme[key])
        else:
            kept[key] = [_public_value(value, scheme[key]) for value in change]
    return kept


def _public_value(value: Any, scheme: Scheme) -> Any:
    if isinstance(value, dict):
        return {key: _public_value(value[key], scheme[key]) for key in value if key in scheme}
    if isinstance(value, list):
        return [_public_value(one, scheme) for one in value]
    return value if not scheme else None


encoded = msgspec.json.Encoder().encode
DICTIONARY = encoded(
    [
        {"owner": {"links": {"self": [{"href": "~api/2.0"}], "avatar": [{"href": "~web/account/"}]}}},
        {"created_on": ["+00:00"], "account_status": ["active"], "username": [""], "uuid": [""]},
        {"mainbranch": [{}], "website": [None], "slug": [], "workspace": [], "project": []},
        "https://bytebucket.org/ravatar/%7B", "%7D?ts=default", "%7D?ts=python", "%7D?ts=java",
        "https://secure.gravatar.com/avatar/", "?d=https%3A%2F%2Favatar-management--avatars.us-west-2",
        ".prod.public.atl-paas.net%2Finitials%2F", "https://avatar-management--avatars.us-west-2.prod.public.",
        "atl-paas.net/initials/", "/128", "-0.png", "~web/account/user/", "/projects/PROJ/avatar/32?ts=1",
        {"user": {"links": {"avatar": [{"href": "https://"}]}, "account_id": ["557058:"], "nickname": [""]}},
        {"self": {"href": ["~api/users/"]}, "html": {"href": ["~web/"]}, "hooks": [], "issues": []},
        {"default_merge_strategy": [], "merge_strategies": [], "target": {"author": {"user": {}}}},
        {"parent": {"name": [""], "links": {"avatar": [{"href": "https://bytebucket.org/ravatar/%7B"}]}}},
        {"enforced_signed_commits": [], "override_settings": [], "parent": []},
        {"workspace": {"links": {"avatar": {"href": ["~web/workspaces/"]}}}},
        "/avatar/?ts=1543", {"project": {"links": {"avatar": {"href": ["~web/account/user/"]}}}},
    ]
)  # fmt: skip
"""What texts of extras often have: part of the format, so it must not change."""


def packed(extra: Json) -> bytes:
    """Compress an extra."""
    return pressed(encoded(extra))


@lru_cache(maxsize=4096)
def pressed(plain: bytes) -> bytes:
    """Compress the text of an extra; cached, because many objects differ from ours in the same way."""
    if len(plain) <= _FITTING:
        press = _PREPARED.copy()
    else:
        press = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=DICTIONARY)
    return press.compress(plain) + press.flush()


# To prepare a compressor takes longer than to compress a short text. So one with a small window and little
# memory is prepared once, and copied; as long as text and dictionary fit into both, it gives the same bytes.
_FITTING = 1_000  # bytes: fewer than the 1,024 symbols of memory level 4
_PREPARED = zlib.compressobj(9, zlib.DEFLATED, -12, 4, zdict=DICTIONARY)


def unpacked(value: bytes) -> Json:
    """Return an extra; raises ValueError for invalid bytes."""
    try:
        plain = zlib.decompressobj(-15, zdict=DICTIONARY).decompress(value)
        found = msgspec.json.decode(plain)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"an extra cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}
