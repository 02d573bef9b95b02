"""Everything that people do to repositories, each as a function over the world."""

from typing import Any

from .commits import new_ref, tip
from .model import Repository, Workspace
from .names import slugify
from .world import World

EDITABLE = {
    "description": str,
    "website": str | None,
    "language": str,
    "size": int,
    "has_issues": bool,
    "has_wiki": bool,
    "is_private": bool,
    "fork_policy": str,
    "followers": int,
    "main_branch": str | None,
}


class Refusal(ValueError):
    """An edit that makes no sense; nothing was changed."""


def create(world: World, workspace: Workspace, name: str, **more: Any) -> Repository:
    """Create an empty repository."""
    slug = str(more.pop("slug", None) or slugify(name)).lower()
    if world.find(workspace.slug, slug) is not None:
        raise Refusal(f"there is a repository {workspace.slug}/{slug} already")
    parent: Repository | None = more.pop("parent", None)
    scm = str(more.pop("scm", None) or (parent.scm if parent else "git"))
    number, now = world.new_number(), world.clock.tick()
    row = Repository(
        number=number,
        workspace=workspace,
        slug=slug,
        name=name,
        uuid=world.new_uuid(number),
        scm=scm,
        created=now,
        updated=now,
    )
    if parent is not None:
        row.parent, row.main_branch, row.size = parent.number, parent.main_branch, parent.size
        row.refs = world.refs_of(parent)
    _set(row, more)
    if row.main_branch is not None and row.refs is None:
        row.refs = [new_ref(row, "branch", row.main_branch, 0, when=now, annotated=False)]
    world.add(row)
    return row


def delete(world: World, row: Repository) -> Repository:
    """Delete a repository; `restore` brings it back."""
    with world.changing(row, touch=False) as kept:
        kept.deleted = True
    return kept


def restore(world: World, row: Repository) -> Repository:
    """Bring a deleted repository back, under the same uuid."""
    if world.find(row.workspace.slug, row.slug) is not None:
        raise Refusal(f"there is another {row.full_name} now")
    with world.changing(row, touch=False) as kept:
        kept.deleted = False
    return kept


def touch(world: World, row: Repository) -> Repository:
    """Move `updated_on` and nothing else."""
    with world.changing(row) as kept:
        return kept


def edit(world: World, row: Repository, fields: dict[str, Any], *, touch: bool = True) -> Repository:
    """Change settings; `followers` are said not to move `updated_on`, so `touch` can be off."""
    _check(fields)
    with world.changing(row, touch=touch) as kept:
        _set(kept, fields)
    return kept


def rename(world: World, row: Repository, name: str) -> Repository:
    """Give a repository another name, and with it another slug."""
    slug = slugify(name)
    found = world.find(row.workspace.slug, slug)
    if found is not None and found.number != row.number:
        raise Refusal(f"there is a repository {found.full_name} already")
    with world.changing(row) as kept:
        kept.name, kept.slug = name, slug
    return kept


def transfer(world: World, row: Repository, to: Workspace) -> Repository:
    """Give a repository to another workspace."""
    if world.find(to.slug, row.slug) is not None:
        raise Refusal(f"there is a repository {to.slug}/{row.slug} already")
    with world.changing(row) as kept:
        kept.workspace = to
    return kept


def swap_names(world: World, row: Repository, other: Repository) -> Repository:
    """Let two repositories of one workspace change names."""
    if row.workspace is not other.workspace or row.number == other.number:
        raise Refusal("only two repositories of one workspace can swap names")
    with world.changing(row) as one, world.changing(other) as two:
        one.name, two.name = two.name, one.name
        one.slug, two.slug = two.slug, one.slug
    return one


def push(world: World, row: Repository, branch: str | None = None) -> Repository:
    """Push a commit to a branch, the main one unless told; the first push makes it."""
    name = branch or row.main_branch or ("default" if row.scm == "hg" else "master")
    return put_ref(world, row, "branch", name)


def put_ref(world: World, row: Repository, kind: str, name: str, **more: Any) -> Repository:
    """Make or move a branch or tag, to a commit of its own unless `target` names one.

    `must_exist` says whether the ref has to be there before, or must not be.
    """
    must_exist: bool | None = more.get("must_exist")
    there = any((ref.kind, ref.name) == (kind, name) for ref in world.refs_of(row))
    if must_exist is not None and must_exist is not there:
        raise Refusal(f"there is {'no' if must_exist else 'already a'} {kind} {name} in {row.full_name}")
    annotated = bool(more.get("annotated", kind == "tag"))
    with world.changing_refs(row, touch=bool(more.get("touch", True))) as refs:
        ref = new_ref(row, kind, name, world.next_push(), when=world.clock.now(), annotated=annotated)
        ref.target = str(more.get("target") or ref.target)
        if ref.heads is not None:
            ref.heads = (ref.target,)
        refs[kind, name] = ref
        if kind == "branch" and row.scm == "hg":
            refs["tag", "tip"] = tip(ref)
    with world.changing(row, touch=False) as kept:
        kept.size += 1_000
        if kind == "branch" and kept.main_branch is None:
            kept.main_branch = name
    return kept


def drop_ref(world: World, row: Repository, kind: str, name: str, *, touch: bool = True) -> Repository:
    """Delete a branch or tag; without its last branch a repository is empty again."""
    if not any((ref.kind, ref.name) == (kind, name) for ref in world.refs_of(row)):
        raise Refusal(f"there is no {kind} {name} in {row.full_name}")
    with world.changing_refs(row, touch=touch) as refs:
        del refs[kind, name]
        branches = [each.name for each in refs.values() if each.kind == "branch"]
    with world.changing(row, touch=False) as kept:
        if kind == "branch" and kept.main_branch == name:
            kept.main_branch = branches[0] if branches else None
    return kept


def _check(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        kind = EDITABLE.get(name)
        if kind is None:
            raise Refusal(f"{name} cannot be edited; these can: {', '.join(EDITABLE)}")
        if not isinstance(value, kind):
            raise Refusal(f"{name} cannot be {value!r}")


def _set(row: Repository, fields: dict[str, Any]) -> None:
    _check(fields)
    for name, value in fields.items():
        setattr(row, name, value)
