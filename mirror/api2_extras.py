"""Extras: how an object of API 2.0 differs from the one that the mirror makes (`mirror.api2_objects`).

With an extra, the mirror serves exactly the object that was sent, including keys of former years and unknown
ones. In an extra, a mapping contains the keys that differ, ``[value]`` is a different value, and ``[]`` is a
key that was not sent.
"""

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from mirror.addresses import Json, localised


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
