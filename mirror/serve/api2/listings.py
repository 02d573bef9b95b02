"""What can be listed, and by which fields each list is asked about and sorted.

Fields are named as in the answers. What is hidden from a caller in an answer is hidden from their
conditions too, or else ``q=parent.full_name ~ "..."`` would tell it letter by letter.
"""

import json
from collections.abc import Sequence

from mirror.queries.caller import Caller
from mirror.queries.counts import Owners, counter
from mirror.queries.repositories import (
    ACCOUNT_COLUMNS,
    ANY_UPSTREAM,
    REF_COLUMNS,
    Values,
    parent_is_told,
    refs_of,
)
from mirror.queries.visible import forks_count, visible
from mirror.serve.api2.paging import Listing, Order
from mirror.serve.api2.query_sql import Field

_IDS = "(SELECT value FROM json_each(:ids))"
_ACCOUNT = ", ".join(f"u.{field}" for field in ACCOUNT_COLUMNS)
_RANK = "CASE m.permission WHEN 'owner' THEN 3 WHEN 'collaborator' THEN 2 ELSE 1 END"
_PERMISSION = f"""CASE WHEN r.owner_id IN {_IDS} THEN 'admin' ELSE
    (SELECT CASE max({_RANK}) WHEN 3 THEN 'admin' WHEN 2 THEN 'write' ELSE 'read' END
     FROM members m WHERE m.workspace_id = r.owner_id AND m.user_id IN {_IDS}) END"""
"""What a caller may do in a repository, by their place in its workspace: the mirror knows no more."""

ROLES = ("member", "contributor", "admin", "owner")


def _uuid(alias: str) -> Field:
    shown = f"iif({alias}.uuid GLOB '{{*', {alias}.uuid, NULL)"
    return Field(
        shown, among=f"{alias}.{ANY_UPSTREAM} AND {alias}.uuid IN (:values) AND {shown} IN (:values)"
    )


def _owners(column: str) -> Field:
    """A column of a repository's owner."""
    return Field(f"(SELECT o.{column} FROM users o WHERE o.id = r.owner_id)")


def _named(column: str) -> str:
    """Let the index of a name find it, which knows no case, though a query does."""
    return f"{column} COLLATE NOCASE IN (:values) AND {column} IN (:values)"


def _namespace() -> Field:
    owned = f"SELECT id FROM users WHERE {_named('username')}"
    return Field(_owners("username").sql, among=f"r.owner_id IN ({owned})")


_REPOSITORY = {
    "uuid": _uuid("r"),
    "full_name": Field("r.full_name", among=_named("r.full_name")),
    **{
        name: Field(f"r.{name}")
        for name in ("name", "slug", "description", "website", "language", "scm", "fork_policy")
    },
    "size": Field("r.size", "number"),
    "followers_count": Field("r.followers_count", "number"),
    "is_private": Field("r.is_private", "boolean"),
    "has_issues": Field("r.has_issues", "boolean"),
    "has_wiki": Field("r.has_wiki", "boolean"),
    "created_on": Field("r.created_at", "date"),
    "updated_on": Field("r.updated_at", "date"),
    "mainbranch": Field("r.main_branch", "object"),
    "mainbranch.name": Field("r.main_branch"),
    "project": Field(
        "coalesce(r.project_key, r.project_name, iif(r.project_uuid GLOB '{*', r.project_uuid, NULL))",
        "object",
    ),
    "project.key": Field("r.project_key"),
    "project.name": Field("r.project_name"),
    "project.uuid": Field("iif(r.project_uuid GLOB '{*', r.project_uuid, NULL)"),
    "workspace.slug": _namespace(),
    "workspace.name": _owners("display_name"),
    "workspace.uuid": Field(
        "(SELECT iif(o.uuid GLOB '{*', o.uuid, NULL) FROM users o WHERE o.id = r.owner_id)",
        among="r.owner_id IN (SELECT id FROM users "
        f"WHERE {ANY_UPSTREAM} AND uuid IN (:values) AND uuid GLOB '{{*')",
    ),
    "owner.username": _namespace(),
    "owner.display_name": _owners("display_name"),
    "owner.nickname": _owners("nickname"),
    "owner.account_id": _owners("account_id"),
    "owner.uuid": Field(
        "(SELECT iif(o.uuid GLOB '{*' AND o.kind <> 'workspace', o.uuid, NULL) FROM users o "
        "WHERE o.id = r.owner_id)"
    ),
}
_WORKSPACE = {
    "slug": Field("u.username", among=_named("u.username")),
    "name": Field("u.display_name"),
    "uuid": _uuid("u"),
    "created_on": Field("u.created_at", "date"),
}
_USER = {
    "uuid": _uuid("u"),
    "display_name": Field("u.display_name"),
    "nickname": Field("u.nickname"),
    "account_id": Field("u.account_id"),
    "username": Field("iif(u.is_owner OR u.username IS NOT u.nickname, u.username, NULL)"),
    "created_on": Field("u.created_at", "date"),
}
_REF = {
    "name": Field("name"),
    "type": Field("iif(kind = 'tag', 'tag', iif(heads IS NULL, 'branch', 'named_branch'))"),
    "target.hash": Field("target_hash"),
    "target.date": Field("target_date", "date"),
    "target.message": Field("target_message"),
    "target.author.raw": Field("target_author"),
    "target.author.user.display_name": Field("target_author_name"),
    "target.author.user.uuid": Field("target_author_uuid"),
    "message": Field("message"),
    "date": Field("date", "date"),
    "tagger.raw": Field("tagger"),
}


def _repository_fields(caller: Caller) -> dict[str, Field]:
    told = parent_is_told(caller)
    return {
        **_REPOSITORY,
        "forks_count": Field(forks_count(caller, "r"), "number"),
        "parent": Field(f"iif({told}, 1, NULL)", "object"),
        "parent.full_name": Field(f"iif({told}, r.parent_full_name, NULL)"),
        "parent.uuid": Field(f"iif({told} AND r.parent_uuid GLOB '{{*', r.parent_uuid, NULL)"),
    }


def _prefixed(prefix: str, fields: dict[str, Field]) -> dict[str, Field]:
    return {f"{prefix}.{name}": field for name, field in fields.items()}


def repositories(
    caller: Caller,
    *,
    owners: Sequence[int] | None = None,
    parent: int | None = None,
    since: str | None = None,
    role: str | None = None,
) -> Listing:
    """List repositories that a caller may see: all, of an owner, of a parent, since a moment, by role."""
    narrowed, values = ["r.deleted_at IS NULL", visible(caller, "r")], _values(caller)
    if owners is not None:
        narrowed.append(_among(owners))
        values |= {"owner": owners[0] if len(owners) == 1 else json.dumps(owners)}
    if parent is not None:
        narrowed.append("r.parent_id = :parent")
        values["parent"] = parent
    if since is not None:
        narrowed.append("r.created_at >= :since")
        values["since"] = since
    if role is not None:
        narrowed.append(_role(caller, role))
    is_plain = parent is None and since is None and role is None
    return Listing(
        columns="r.id",
        source="repositories r",
        where=" AND ".join(narrowed),
        values=values,
        keys=("r.id",),
        fields=_repository_fields(caller),
        default=Order("r.created_at"),
        count=counter(caller, Owners(_among(owners) if owners is not None else "", values))
        if is_plain
        else None,
    )


def _among(owners: Sequence[int]) -> str:
    """Return the condition on a repository's owner; one alone keeps the order of the index."""
    return (
        "r.owner_id = :owner" if len(owners) == 1 else "r.owner_id IN (SELECT value FROM json_each(:owner))"
    )


def _role(caller: Caller, role: str) -> str:
    """Return the condition under which a caller has a role; a token that speaks for nobody has them all."""
    if caller.sees_all and not caller.user_ids:
        return "1"
    if role == "owner":
        return f"r.owner_id IN {_IDS}"
    wanted = {"member": ("admin", "write", "read"), "contributor": ("admin", "write"), "admin": ("admin",)}
    return f"{_PERMISSION} IN ({', '.join(repr(one) for one in wanted[role])})"


def own_repositories(caller: Caller) -> Listing:
    """List what the caller owns, and what the workspaces own that they belong to, with the permission."""
    mine = f"""(r.owner_id IN {_IDS} OR r.owner_id IN
        (SELECT workspace_id FROM members WHERE user_id IN {_IDS}))"""
    fields = {
        "permission": Field(f"({_PERMISSION})"),
        **_prefixed("repository", {name: _REPOSITORY[name] for name in ("uuid", "full_name", "name")}),
    }
    return Listing(
        columns=f"r.id, {_PERMISSION}",
        source="repositories r",
        where=f"r.deleted_at IS NULL AND {mine}",
        values=_values(caller),
        keys=("r.id",),
        fields=fields,
        default=Order("r.full_name COLLATE NOCASE"),
    )


def workspaces(caller: Caller, role: str | None = None) -> Listing:
    """List namespaces: all of them for tokens, else those that own something the caller may see."""
    narrowed = ["u.is_owner AND u.deleted_at IS NULL AND u.username IS NOT NULL"]
    if not caller.sees_all:
        narrowed.append(
            f"""(u.id IN {_IDS} OR EXISTS (SELECT 1 FROM repositories r
                WHERE r.owner_id = u.id AND r.deleted_at IS NULL AND {visible(caller, "r")}))"""
        )
    if role is not None and not (caller.sees_all and not caller.user_ids):
        wanted = {"owner": ("owner",), "collaborator": ("owner", "collaborator")}.get(role)
        limited = f"AND m.permission IN ({', '.join(repr(one) for one in wanted)})" if wanted else ""
        narrowed.append(
            f"""(u.id IN {_IDS} OR u.id IN
                (SELECT m.workspace_id FROM members m WHERE m.user_id IN {_IDS} {limited}))"""
        )
    return _accounts(caller, " AND ".join(narrowed), _WORKSPACE)


def own_workspaces(caller: Caller, *, administrator: bool | None = None) -> Listing:
    """List the namespaces that the caller may work in, with their permission there; a token may in all."""
    permission = f"""CASE WHEN u.id IN {_IDS} THEN 'owner' ELSE (SELECT m.permission FROM members m
        WHERE m.workspace_id = u.id AND m.user_id IN {_IDS} ORDER BY {_RANK} DESC LIMIT 1) END"""
    narrowed = "u.is_owner AND u.deleted_at IS NULL AND u.username IS NOT NULL"
    if not caller.sees_all:
        narrowed += f""" AND (u.id IN {_IDS} OR u.id IN
            (SELECT m.workspace_id FROM members m WHERE m.user_id IN {_IDS}))"""
    administers = f"coalesce(({permission}) = 'owner', 0)"
    if administrator is not None:
        narrowed += f" AND {administers} = {int(administrator)}"
    fields = {
        **_prefixed("workspace", {name: _WORKSPACE[name] for name in ("slug", "uuid")}),
        "administrator": Field(administers, "boolean"),
    }
    return _accounts(caller, narrowed, fields, more=f", {permission}")


def members(caller: Caller, workspace: int, member: int | None = None) -> Listing:
    """List the members of a workspace, or the memberships of one of them."""
    one = "" if member is None else "AND m.user_id = :member"
    return Listing(
        columns=f"{_ACCOUNT}, m.permission",
        source="members m JOIN users u ON u.id = m.user_id",
        where=f"m.workspace_id = :workspace AND u.deleted_at IS NULL {one}",
        values={**_values(caller), "workspace": workspace, "member": member},
        keys=("m.user_id",),
        fields={"permission": Field("m.permission"), **_prefixed("user", _USER)},
        default=Order("m.user_id"),
    )


def watchers(caller: Caller, repository: int) -> Listing:
    """List who follows a repository, as far as the upstream told."""
    return Listing(
        columns=_ACCOUNT,
        source="followers f JOIN users u ON u.id = f.user_id",
        where="f.repository_id = :repository AND u.deleted_at IS NULL",
        values={**_values(caller), "repository": repository},
        keys=("f.user_id",),
        fields=_USER,
        default=Order("f.user_id"),
    )


def refs(repository: int, *kinds: str) -> Listing:
    """List branches, tags or both, in the byte order of their names, as Bitbucket does."""
    return Listing(
        columns=", ".join(REF_COLUMNS),
        source=f"({refs_of(*kinds)})",
        where="1",
        values={"repository": repository},
        keys=("name", "kind"),
        fields=_REF,
        sorts={"name": "mirror_natural(name)"},
        default=Order("name"),
    )


def _accounts(caller: Caller, where: str, fields: dict[str, Field], more: str = "") -> Listing:
    return Listing(
        columns=_ACCOUNT + more,
        source="users u",
        where=where,
        values=_values(caller),
        keys=("u.id",),
        fields=fields,
        default=Order("u.username COLLATE NOCASE"),
    )


def _values(caller: Caller) -> Values:
    return {"ids": json.dumps(caller.user_ids)}
