"""Holding a mirror against the sandbox it was synced from, row by row and field by field."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mirror.sandbox import TOKEN, Principal, Sandbox, repository_refs, visible_repositories
from mirror.times import normalised

Rows = Callable[[str], list[Any]]
"""Asks a mirror file for rows."""

REPOSITORY_COLUMNS = (
    "uuid", "slug", "name", "full_name", "scm", "is_private", "description", "website", "language", "size",
    "main_branch", "fork_policy", "parent_uuid", "has_issues", "has_wiki", "project_key", "project_name",
    "clone_https", "clone_ssh", "created_at", "updated_at",
)  # fmt: skip
"""What is compared. Counts of followers and forks, and a parent's name, change without `updated_on`."""


def differences(
    rows: Rows, sandbox: Sandbox, workspaces: Sequence[str], *, origin: str, caller: Principal = TOKEN
) -> Iterator[str]:
    """Yield every difference between a mirror, without its tombstones, and the sandbox."""
    wanted = {
        row["uuid"]: row
        for row in visible_repositories(sandbox.world, caller, origin)
        if _namespace(row) in workspaces
    }
    mine = {row["uuid"]: row for row in repositories(rows)}
    yield from (f"missing: {wanted[uuid]['full_name']}" for uuid in sorted(wanted.keys() - mine.keys()))
    yield from (f"too many: {mine[uuid]['full_name']}" for uuid in sorted(mine.keys() - wanted.keys()))
    my_refs = refs(rows)
    for uuid in sorted(wanted.keys() & mine.keys()):
        name, owner = wanted[uuid]["full_name"], sandbox.world.workspace(_namespace(wanted[uuid]))
        owned = {"owner_uuid": owner and owner.uuid, "owner_name": owner and owner.slug}
        yield from _differing(name, mine[uuid], {**repository_of(wanted[uuid]), **owned})
        told = {
            (ref["type"] == "tag", ref["name"]): ref_of(ref) for ref in repository_refs(sandbox.world, name)
        }
        yield from _differing(f"{name}: refs", my_refs.get(uuid, {}), told)


def _differing(of: str, mine: dict[Any, Any], wanted: dict[Any, Any]) -> Iterator[str]:
    for key in sorted(mine.keys() | wanted.keys(), key=str):
        if key not in mine or key not in wanted or mine[key] != wanted[key]:
            yield f"{of}: {key} is {mine.get(key, 'missing')!r}, not {wanted.get(key, 'there')!r}"


def repositories(rows: Rows) -> list[dict[str, Any]]:
    """Read all rows that are no tombstones, with their owner."""
    sql = f"""SELECT {", ".join(f"r.{column}" for column in REPOSITORY_COLUMNS)}, u.uuid, u.username
              FROM repositories r JOIN users u ON u.id = r.owner_id WHERE r.deleted_at IS NULL"""
    return [
        dict(zip((*REPOSITORY_COLUMNS, "owner_uuid", "owner_name"), row, strict=True)) for row in rows(sql)
    ]


def repository_of(row: dict[str, Any]) -> dict[str, Any]:
    """Arrange an object of API 2.0 as the mirror's row must be."""
    clones = {link["name"]: link["href"] for link in row["links"]["clone"]}
    plain = ("uuid", "slug", "name", "full_name", "scm", "description", "website", "language", "size")
    return {
        **{name: row.get(name) for name in plain},
        "fork_policy": row.get("fork_policy"),
        "is_private": int(row["is_private"]),
        "main_branch": (row.get("mainbranch") or {}).get("name"),
        "parent_uuid": (row.get("parent") or {}).get("uuid"),
        "has_issues": _flag(row.get("has_issues")),
        "has_wiki": _flag(row.get("has_wiki")),
        "project_key": (row.get("project") or {}).get("key"),
        "project_name": (row.get("project") or {}).get("name"),
        "clone_https": clones["https"],
        "clone_ssh": clones["ssh"],
        "created_at": _moment(row["created_on"]),
        "updated_at": _moment(row["updated_on"]),
    }


def refs(rows: Rows) -> dict[str, dict[tuple[bool, str], dict[str, Any]]]:
    """Read branches and tags by the uuid of their repository, and by kind and name."""
    common = "x.name, x.target_hash, x.target_date, x.target_author, x.target_message, x.target_parents"
    found = dict[str, dict[tuple[bool, str], dict[str, Any]]]()
    for uuid, is_tag, name, *rest in rows(
        f"""SELECT r.uuid, 0, {common}, x.heads, NULL, NULL, NULL FROM branches x JOIN repositories r
            ON r.id = x.repository_id UNION ALL
            SELECT r.uuid, 1, {common}, NULL, x.tagger, x.message, x.date FROM tags x JOIN repositories r
            ON r.id = x.repository_id"""
    ):
        names = ("hash", "date", "author", "message", "parents", "heads", "tagger", "note", "tagged")
        ref = dict(zip(names, rest, strict=True))
        for listed in ("parents", "heads"):
            ref[listed] = None if ref[listed] is None else json.loads(ref[listed])
        found.setdefault(uuid, {})[bool(is_tag), name] = ref
    return found


def ref_of(ref: dict[str, Any]) -> dict[str, Any]:
    """Arrange a ref of API 2.0 as the mirror's row must be."""
    target = ref["target"]
    return {
        "hash": target["hash"],
        "date": _moment(target["date"]),
        "author": target["author"]["raw"],
        "message": target["message"],
        "parents": [parent["hash"] for parent in target["parents"]],
        "heads": [head["hash"] for head in ref["heads"]] if "heads" in ref and ref["type"] != "tag" else None,
        "tagger": (ref.get("tagger") or {}).get("raw"),
        "note": ref.get("message") if ref["type"] == "tag" else None,
        "tagged": _moment(ref.get("date")) if ref["type"] == "tag" else None,
    }


def _namespace(row: dict[str, Any]) -> str:
    return str(row["full_name"]).partition("/")[0]


def _moment(text: str | None) -> str | None:
    return None if text is None else normalised(text)


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)
