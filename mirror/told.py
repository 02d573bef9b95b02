"""What Bitbucket told of an object beside or instead of what the mirror's columns make of it.

`repository_object` and `ref_object` make the object of API 2.0 that Bitbucket sends today out of columns.
The difference to the object that was told (its extra) is kept. So the mirror serves the same object, with the
keys that came and went over the years, and with keys that nobody knows yet. In an extra a mapping leads to
the keys that differ, ``[value]`` stands for another value, and ``[]`` for a key that was not told.

API and WEB stand for the beginnings of addresses, which the mirror replaces by its own and the upstream's.
"""

import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

API, WEB = "~api", "~web"
CLOUD = "https://bitbucket.org"
Json = dict[str, Any]

# Bitbucket leaves these unescaped in its links, but escapes quotes, spaces and #.
_UNESCAPED = "/$;&=@!,:+"
# A page has a thousand links, most of them plain. This check costs a fifth of calling quote().
_PLAIN = re.compile(r"[\w./~-]*", re.ASCII)
_UUID = re.compile(r"\{[\w-]*\}", re.ASCII)
_API_PATH = re.compile(r"(/!?api)?/[12]\.0/?$|/rest/api/[\w.]+/?$")
_LOGIN = re.compile(r"^(https?://)[^/?#@]*@", re.IGNORECASE)


class Told(msgspec.Struct, frozen=True, eq=False):
    """An object as it was told, with API and WEB in its addresses and no login in them.

    `anonymous`: it was told to a crawl without credential, so everybody may know all of it. `api` is the one
    that told it; of API 1.0 `value` holds no more than the keys that no column has.
    """

    value: Json
    anonymous: bool = False
    api: str = "2.0"

    def __eq__(self, other: object) -> bool:
        """Two values of the model are equal whatever else was told of them."""
        return other is None or isinstance(other, Told)

    def __hash__(self) -> int:
        return 0


def web_of(url: str) -> str:
    """Return the address of the pages for people of whose API the address is known."""
    if url.startswith(("https://api.bitbucket.org/", f"{CLOUD}/")):
        return CLOUD
    return _API_PATH.sub("", url).rstrip("/")


def teller(url: str, *, anonymous: bool = False) -> Callable[[Any], Told]:
    """Return the function that takes the addresses of an upstream out of the objects that it tells."""
    web = web_of(url)
    origins = ("https://api.bitbucket.org", CLOUD) if web == CLOUD else (web,)
    paths = {urlsplit(url).path.rstrip("/") or "/2.0", "/2.0", "/!api/2.0", "/api/2.0"}
    apis = "|".join(re.escape(f"{origin}{path}/") for origin in origins for path in sorted(paths))
    is_api, is_web = re.compile(f"(?:{apis})"), re.compile(re.escape(web) + r"(?=/)")

    def address(text: str) -> str:
        plain = _LOGIN.sub(r"\1", text)
        found = is_api.match(plain)
        if found:
            return f"{API}/{plain[found.end() :]}"
        return is_web.sub(WEB, plain, count=1) if is_web.match(plain) else plain

    def neutral(value: Any) -> Any:
        if value.__class__ is dict:
            return {
                key: address(inner) if key == "href" and inner.__class__ is str else neutral(inner)
                for key, inner in value.items()
            }
        return [neutral(inner) for inner in value] if value.__class__ is list else value

    return lambda value: Told(neutral(value), anonymous)


def localised(value: Any, api: str, web: str, key: str = "") -> Any:
    """Put the beginnings of addresses back; `key` is that of the value."""
    if isinstance(value, str) and key == "href":
        if value.startswith(f"{API}/"):
            return api + value[len(API) :]
        return web + value[len(WEB) :] if value.startswith(f"{WEB}/") else value
    if isinstance(value, dict):
        return {key: localised(inner, api, web, key) for key, inner in value.items()}
    return [localised(inner, api, web) for inner in value] if isinstance(value, list) else value


def escaped(text: str) -> str:
    """Escape a name for an address, only as far as Bitbucket does."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_UNESCAPED)


def segment(text: str) -> str:
    """Escape a text as one segment of an address."""
    if _UUID.fullmatch(text):
        return f"%7B{text[1:-1]}%7D"
    return text if _PLAIN.fullmatch(text) and "/" not in text else quote(text, safe="")


def hrefs(**addresses: str | None) -> Json:
    """Return links by name, as every object of API 2.0 has them; an address that is None is left out."""
    return {name: {"href": address} for name, address in addresses.items() if address is not None}


def moment(text: str | None) -> str | None:
    """Format a time as Bitbucket does: with an offset, and always six digits, which some clients need."""
    return None if text is None else f"{text[:-1]}+00:00"


def seconds(text: str | None) -> str | None:
    """Format the date of a commit or a tag as Bitbucket does: without fractions, which git does not store."""
    if text is None or not text.endswith(".000000Z"):
        return moment(text)
    return f"{text[:19]}+00:00"


def _known(identity: str | None) -> str | None:
    return identity if identity is not None and identity.startswith("{") else None


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def account_object(row: Any, api: str, web: str) -> Json:
    """Make the account that an owner's columns stand for; `row` has the fields of `mirror.model.Owner`."""
    identity = segment(_known(row.uuid) or row.username or "")
    is_person = row.kind == "user"
    shaped: Json = {
        "type": "user" if is_person else "team",
        "display_name": row.display_name,
        "uuid": _known(row.uuid),
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
    """Make the short form of a workspace from its owner's columns, whose name can be another one."""
    slug = segment(row.username or "")
    return {
        "type": "workspace",
        "uuid": _known(row.uuid),
        "name": name,
        "slug": row.username,
        "links": hrefs(
            self=f"{api}/workspaces/{slug}",
            html=f"{web}/{slug}/",
            avatar=f"{web}/workspaces/{slug}/avatar/",
        ),
    }


def repository_object(row: Any, owner: Any, api: str, web: str) -> Json:
    """Make a repository from its columns and its owner's.

    `row` has the fields of `mirror.model.Repository`.
    """
    name = escaped(row.full_name)
    here, page = f"{api}/repositories/{name}", f"{web}/{name}"
    children = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")
    links = hrefs(
        self=here,
        html=page,
        avatar=row.avatar_url,
        **{child: f"{here}/{child}" for child in children},
        branches=f"{here}/refs/branches",
        tags=f"{here}/refs/tags",
        source=f"{here}/src",
        issues=f"{here}/issues" if row.has_issues else None,
    )
    links["clone"] = [
        {"name": kind, "href": _web(address, web)}
        for kind, address in (("https", row.clone_https), ("ssh", row.clone_ssh))
        if address is not None
    ]
    counted = {name: getattr(row, name) for name in ("followers_count", "forks_count")}
    return {
        "type": "repository",
        "uuid": _known(row.uuid),
        "full_name": row.full_name,
        "name": row.name,
        "slug": row.slug,
        "description": row.description,
        "scm": row.scm,
        "website": row.website,
        "owner": account_object(owner, api, web),
        "workspace": workspace_object(owner, api, web, name=owner.display_name),
        "is_private": bool(row.is_private),
        "project": _project_object(row, owner, api, web),
        "fork_policy": row.fork_policy,
        "created_on": moment(row.created_at),
        "updated_on": moment(row.updated_at),
        "size": row.size,
        "language": row.language,
        "has_issues": _flag(row.has_issues),
        "has_wiki": _flag(row.has_wiki),
        "mainbranch": _main_branch(row),
        "override_settings": {"default_merge_strategy": True, "branching_model": True},
        "enforced_signed_commits": None,
        "parent": _parent_object(row, api, web),
        "links": links,
        **{name: value for name, value in counted.items() if value is not None},
    }


def _web(address: str, web: str) -> str:
    """Write an address below the upstream's as the extras do, where `web` is the mark for it."""
    return address.replace(CLOUD, web, 1) if web == WEB and address.startswith(f"{CLOUD}/") else address


def _main_branch(row: Any) -> Json | None:
    if row.main_branch is None:
        return None
    return {"type": "named_branch" if row.scm == "hg" else "branch", "name": row.main_branch}


def _project_object(row: Any, owner: Any, api: str, web: str) -> Json | None:
    if row.project_key is None:
        return None
    slug, key = segment(owner.username or ""), segment(row.project_key)
    page = f"{web}/{slug}/workspace/projects/{key}"
    return {
        "type": "project",
        "key": row.project_key,
        "uuid": _known(row.project_uuid),
        "name": row.project_name,
        "links": hrefs(self=f"{api}/workspaces/{slug}/projects/{key}", html=page, avatar=f"{page}/avatar/32"),
    }


def _parent_object(row: Any, api: str, web: str) -> Json | None:
    full_name = row.parent_full_name
    if full_name is None:
        return None
    name = escaped(full_name)
    return {
        "type": "repository",
        "full_name": full_name,
        "name": full_name.partition("/")[2],
        "uuid": _known(row.parent_uuid),
        "links": hrefs(self=f"{api}/repositories/{name}", html=f"{web}/{name}"),
    }


def short_repository_object(row: Any, api: str, web: str) -> Json:
    """Make a repository as other objects embed it, without slug and owner."""
    name = escaped(row.full_name)
    return {
        "type": "repository",
        "uuid": _known(row.uuid),
        "full_name": row.full_name,
        "name": row.name,
        "links": hrefs(self=f"{api}/repositories/{name}", html=f"{web}/{name}", avatar=row.avatar_url),
    }


def ref_object(repository: Any, row: Any, api: str, web: str) -> Json:
    """Make a branch or a tag; `row` has the fields of `mirror.model.Ref`, its lists as lists or as JSON."""
    name, full_name = escaped(row.name), escaped(repository.full_name)
    here, page = f"{api}/repositories/{full_name}", f"{web}/{full_name}"
    is_tag, heads = row.kind == "tag", _listed(row.heads)
    shaped: Json = {
        "name": row.name,
        "type": "tag" if is_tag else "branch" if heads is None else "named_branch",
        "target": commit_object(repository, row, api, web),
        "links": hrefs(
            self=f"{here}/refs/{'tags' if is_tag else 'branches'}/{name}",
            commits=f"{here}/commits/{name}",
            html=f"{page}/{'commits/tag' if is_tag else 'branch'}/{name}",
        ),
    }
    if is_tag:
        tagger = None if row.tagger is None else {"type": "author", "raw": row.tagger}
        return shaped | {"message": row.message, "date": seconds(row.date), "tagger": tagger}
    if heads is not None:
        shaped["heads"] = [_short_commit(here, page, one) for one in heads]
    strategies = ["merge_commit", "squash", "fast_forward"]
    return shaped | {"default_merge_strategy": strategies[0], "merge_strategies": strategies}


def commit_object(repository: Any, row: Any, api: str, web: str) -> Json:
    """Make the commit that a ref points to."""
    full_name = escaped(repository.full_name)
    here, page = f"{api}/repositories/{full_name}", f"{web}/{full_name}"
    parents = _listed(row.target_parents)
    return {
        **_short_commit(here, page, row.target_hash),
        "date": seconds(row.target_date),
        "author": _author_object(row, api, web),
        "message": row.target_message,
        "parents": None if parents is None else [_short_commit(here, page, one) for one in parents],
        "repository": short_repository_object(repository, api, web),
    }


def _author_object(row: Any, api: str, web: str) -> Json | None:
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


def _short_commit(here: str, page: str, name: str) -> Json:
    links = hrefs(self=f"{here}/commit/{name}", html=f"{page}/commits/{name}")
    return {"type": "commit", "hash": name, "links": links}


def _listed(value: Any) -> list[str] | None:
    if value is None:
        return None
    return list(json.loads(value)) if isinstance(value, str) else list(value)


def difference(told: Json, ours: Json) -> Json:
    """Return what is to be changed in one object to make it the other."""
    extra: Json = {}
    for key, value in told.items():
        own = ours.get(key, extra)  # `extra` is not told, so it equals nothing
        if own is extra:
            extra[key] = [value]
        elif value.__class__ is dict and own.__class__ is dict:
            inner = difference(value, own)
            if inner:
                extra[key] = inner
        elif value != own or value.__class__ is not own.__class__:
            extra[key] = [value]
    for key in ours:
        if key not in told:
            extra[key] = []
    return extra


def changed(ours: Json, extra: Json, api: str, web: str) -> Json:
    """Return an object with what an extra says of it."""
    shaped = dict(ours)
    for key, change in extra.items():
        if change.__class__ is dict:
            inner = shaped.get(key)
            shaped[key] = changed(inner if isinstance(inner, dict) else {}, change, api, web)
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
"""The keys, by the kind of the extra, that strangers may be told though an authenticated crawl read them.

What else an extra holds, strangers see only if an anonymous crawl was told it.
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


_ENCODE = msgspec.json.Encoder().encode
_DICTIONARY = _ENCODE(
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


def packed(extra: Json) -> bytes:
    """Compress an extra; the shared dictionary is part of the format, and must not change."""
    press = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DICTIONARY)
    return press.compress(_ENCODE(extra)) + press.flush()


def unpacked(value: bytes) -> Json:
    """Return an extra; raises ValueError for bytes that are none."""
    try:
        plain = zlib.decompressobj(-15, zdict=_DICTIONARY).decompress(value)
        found = msgspec.json.decode(plain)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"an extra cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}
