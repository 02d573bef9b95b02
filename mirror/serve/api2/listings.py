"""The lists of API 2.0, with the fields by which each can be queried and sorted.

Fields are named as in the answers. A field that is hidden from a caller is hidden from the caller's queries
too. Otherwise ``q=parent.full_name ~ "..."`` would reveal it letter by letter.
"""

from collections.abc import Sequence
from typing import Any

from mirror.model import RefKind
from mirror.queries import sources
from mirror.queries.rows import ANY_UPSTREAM, FLAGS
from mirror.queries.visibility import Caller, forks_count, parent_is_shown
from mirror.serve.api2.edge import Api2Request
from mirror.serve.api2.paging import Listing, SortOrder
from mirror.serve.api2.query_language import Field
from mirror.serve.exchange import ApiError

ROLES = ("member", "contributor", "admin", "owner")


def role_of(asked: Api2Request, roles: Sequence[str] = ROLES) -> str | None:
    """Read the `role` parameter; raises ApiError 400."""
    role = asked.parameters.get("role") or None
    if role is not None and role not in roles:
        raise ApiError(400, f"Invalid role: {role[:100]}", detail=f"It is one of {', '.join(roles)}.")
    return role


def _uuid(alias: str) -> Field:
    shown = f"iif({alias}.uuid GLOB '{{*', {alias}.uuid, NULL)"
    return Field(
        shown, among=f"{alias}.{ANY_UPSTREAM} AND {alias}.uuid IN (:values) AND {shown} IN (:values)"
    )


def _owners(column: str) -> Field:
    return Field(f"(SELECT o.{column} FROM users o WHERE o.id = r.owner_id)")


def _workspace_name(owner: str) -> str:
    """Return a workspace's own name, as `Shapes.workspace` serves it; its account may have another one."""
    sent = f"SELECT mirror_sent_name(value) FROM extras WHERE kind = 'workspace' AND row_id = {owner}.id"
    return f"coalesce(({sent}), {owner}.display_name)"


def _named(column: str) -> str:
    """Return a condition that uses the case-insensitive index of a name, then compares its case."""
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
    **{name: Field(f"r.{name}", "boolean") for name in FLAGS},
    "size": Field("r.size", "number"),
    "followers_count": Field("r.followers_count", "number"),
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
    "workspace.name": Field(f"(SELECT {_workspace_name('o')} FROM users o WHERE o.id = r.owner_id)"),
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
    "name": Field(_workspace_name("u")),
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
_BY_USERNAME = SortOrder("u.username COLLATE NOCASE")


def _repository_fields(caller: Caller) -> dict[str, Field]:
    shown = parent_is_shown(caller)
    return {
        **_REPOSITORY,
        "forks_count": Field(forks_count(caller), "number"),
        "parent": Field(f"iif({shown}, 1, NULL)", "object"),
        "parent.full_name": Field(f"iif({shown}, r.parent_full_name, NULL)"),
        "parent.uuid": Field(f"iif({shown} AND r.parent_uuid GLOB '{{*', r.parent_uuid, NULL)"),
    }


def _prefixed(prefix: str, fields: dict[str, Field]) -> dict[str, Field]:
    return {f"{prefix}.{name}": field for name, field in fields.items()}


def repositories(caller: Caller, **narrowed: Any) -> Listing:
    """List repositories that a caller may see, oldest first; `narrowed` goes to `sources.repositories`."""
    source = sources.repositories(caller, **narrowed)
    return Listing(source=source, fields=_repository_fields(caller), default=SortOrder("r.created_at"))


def own_repositories(caller: Caller, workspaces: Sequence[int] | None = None) -> Listing:
    """List the repositories of the caller and the caller's workspaces, by name, with the permission."""
    fields = {
        "permission": Field(f"({sources.REPOSITORY_PERMISSION})"),
        **_prefixed("repository", {name: _REPOSITORY[name] for name in ("uuid", "full_name", "name")}),
    }
    order = SortOrder("r.full_name COLLATE NOCASE")
    return Listing(source=sources.own_repositories(caller, workspaces), fields=fields, default=order)


def workspaces(caller: Caller, role: str | None = None) -> Listing:
    """List namespaces that a caller may see, by name."""
    return Listing(source=sources.workspaces(caller, role), fields=_WORKSPACE, default=_BY_USERNAME)


def own_workspaces(caller: Caller, *, administrator: bool | None = None) -> Listing:
    """List the caller's namespaces, by name, with the permission in each."""
    fields = {
        **_prefixed("workspace", {name: _WORKSPACE[name] for name in ("slug", "uuid")}),
        "administrator": Field(sources.administers(caller), "boolean"),
    }
    source = sources.own_workspaces(caller, administrator=administrator)
    return Listing(source=source, fields=fields, default=_BY_USERNAME)


def memberships(caller: Caller, among: Sequence[int] | None = None) -> Listing:
    """List the workspaces that the caller belongs to, with the permission in each."""
    fields = {
        **_prefixed("workspace", _WORKSPACE),
        "permission": Field(sources.workspace_permission(caller)),
    }
    source = sources.own_workspaces(caller, among=among)
    return Listing(source=source, fields=fields, default=_BY_USERNAME)


def members(caller: Caller, workspace: int, member: int | None = None) -> Listing:
    """List the members of a workspace, or the membership of one of them."""
    fields = {"permission": Field("m.permission"), **_prefixed("user", _USER)}
    source = sources.members(caller, workspace, member)
    return Listing(source=source, fields=fields, default=SortOrder("m.user_id"))


def projects(caller: Caller, workspaces: Sequence[int]) -> Listing:
    """List the projects of a workspace, by key."""
    fields = {
        "key": Field("p.key"),
        "name": Field("p.name"),
        "uuid": _uuid("p"),
        "description": Field("p.description"),
        "is_private": Field("p.is_private", "boolean"),
    }
    source = sources.projects(caller, workspaces)
    return Listing(source=source, fields=fields, default=SortOrder("p.key COLLATE NOCASE"))


def watchers(caller: Caller, repository: int) -> Listing:
    """List who follows a repository."""
    source = sources.watchers(caller, repository)
    return Listing(source=source, fields=_USER, default=SortOrder("f.user_id"))


def refs(repository: int, *kinds: RefKind) -> Listing:
    """List branches, tags or both, in byte order of their names, as Bitbucket does."""
    return Listing(
        source=sources.refs(repository, *kinds),
        fields=_REF,
        sorts={"name": "mirror_natural(name)"},
        default=SortOrder("name"),
    )
