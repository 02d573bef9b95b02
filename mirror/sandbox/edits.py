"""Edits of the world: what people do to repositories and workspaces, each as a function."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints

from mirror.sandbox.generate import new_ref, tip
from mirror.sandbox.model import SandboxRepository, SandboxWorkspace, iso
from mirror.sandbox.vocabulary import slugify
from mirror.sandbox.world import World

_FIXED = {
    "number", "workspace", "slug", "name", "uuid", "scm", "created", "updated", "main_branch_shape", "parent",
    "era", "project", "refs", "deleted",
}  # fmt: skip
EDITABLE = {name: kind for name, kind in get_type_hints(SandboxRepository).items() if name not in _FIXED}


class EditError(ValueError):
    """An edit that is not possible. Nothing was changed."""


def create(world: World, workspace: SandboxWorkspace, name: str, **more: Any) -> SandboxRepository:
    """Create a repository; it is empty unless `more` names a `parent` or a `main_branch`."""
    slug = str(more.pop("slug", None) or slugify(name)).lower()
    if world.find(workspace.slug, slug) is not None:
        raise EditError(f"there is a repository {workspace.slug}/{slug} already")
    parent: SandboxRepository | None = more.pop("parent", None)
    scm = str(more.pop("scm", None) or (parent.scm if parent else "git"))
    number, now = world.new_number(), world.clock.tick()
    row = SandboxRepository(
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


def delete(world: World, row: SandboxRepository) -> SandboxRepository:
    """Delete a repository; the action `restore` brings it back."""
    with world.changing(row, touch=False) as kept:
        kept.deleted = True
    return kept


def edit(
    world: World, row: SandboxRepository, fields: dict[str, Any], *, touch: bool = True
) -> SandboxRepository:
    """Change settings. Without `touch`, `updated_on` stays, as it does for new followers."""
    _check(fields)
    with world.changing(row, touch=touch) as kept:
        _set(kept, fields)
    return kept


def rename(world: World, row: SandboxRepository, name: str) -> SandboxRepository:
    """Rename a repository; its slug follows."""
    slug = slugify(name)
    found = world.find(row.workspace.slug, slug)
    if found is not None and found.number != row.number:
        raise EditError(f"there is a repository {found.full_name} already")
    with world.changing(row) as kept:
        kept.name, kept.slug = name, slug
    return kept


def put_ref(
    world: World,
    row: SandboxRepository,
    kind: str,
    name: str,
    *,
    must_exist: bool | None = None,
    target: str = "",
    annotated: bool | None = None,
    touch: bool = True,
    forced: bool = False,
) -> SandboxRepository:
    """Create or move a branch or tag.

    - `must_exist`: True if the ref has to exist, False if it must not, None for either.
    - `target`: the hash it points to; "" for that of a new commit.
    - `annotated`: whether it is an annotated tag; None for any tag.
    - `touch`: whether `updated_on` changes.
    - `forced`: whether a moved branch leaves out the commit that it was at.
    """
    there = any((ref.kind, ref.name) == (kind, name) for ref in world.refs_of(row))
    if must_exist is not None and must_exist is not there:
        raise EditError(f"there is {'no' if must_exist else 'already a'} {kind} {name} in {row.full_name}")
    annotated = kind == "tag" if annotated is None else annotated
    with world.changing_refs(row, touch=touch) as refs:
        ref = new_ref(row, kind, name, world.next_push(), when=world.clock.now(), annotated=annotated)
        ref.target = str(target or ref.target)
        former = refs.get((kind, name))
        if kind == "branch" and former is not None and not forced:
            ref.parents = (former.target, *ref.parents[1:])
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


def _check(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        kind = EDITABLE.get(name)
        if kind is None:
            raise EditError(f"{name} cannot be edited; these can: {', '.join(EDITABLE)}")
        if not isinstance(value, kind):
            raise EditError(f"{name} cannot be {value!r}")


def _set(row: SandboxRepository, fields: dict[str, Any]) -> None:
    _check(fields)
    for name, value in fields.items():
        setattr(row, name, value)


Order = dict[str, Any]


def perform(world: World, order: Order, *, tags_touch: bool = True) -> dict[str, Any]:
    """Perform one edit and return the new state of the repository or workspace; raises EditError."""
    action = str(order.get("action"))
    if action in WORKSPACE_ACTIONS:
        workspace = WORKSPACE_ACTIONS[action](world, order)
        members = [person.username for person in workspace.members]
        return {"workspace": workspace.slug, "uuid": workspace.uuid, "members": members}
    if action not in ACTIONS:
        raise EditError(f"there is no action {action}; there are {', '.join([*ACTIONS, *WORKSPACE_ACTIONS])}")
    row = ACTIONS[action](world, {"touch": tags_touch or "tag" not in action, **order})
    facts = {"repository": row.full_name, "uuid": row.uuid, "updated_on": iso(row.updated)}
    return {**facts, "deleted": row.deleted}


def _rename_workspace(world: World, order: Order) -> SandboxWorkspace:
    workspace = _workspace(world, order, "workspace")
    try:
        world.rename_workspace(workspace, _text(order, "name"))
    except ValueError as bad:
        raise EditError(str(bad)) from None
    return workspace


def _delete_workspace(world: World, order: Order) -> SandboxWorkspace:
    workspace = _workspace(world, order, "workspace")
    workspace.deleted = True
    return workspace


def _restore_workspace(world: World, order: Order) -> SandboxWorkspace:
    workspace = world.any_workspace(_text(order, "workspace"))
    if workspace is None or not workspace.deleted:
        raise EditError(f"no workspace {order['workspace']} was deleted")
    workspace.deleted = False
    return workspace


def _change_members(world: World, order: Order) -> SandboxWorkspace:
    workspace, person = _workspace(world, order, "workspace"), world.person(_text(order, "name"))
    if person is None:
        raise EditError(f"there is nobody called {order['name']}")
    if (person in workspace.members) is (order["action"] == "add_member"):
        raise EditError(
            f"{person.username} is {'already' if person in workspace.members else 'not'} a member"
        )
    if workspace.members == [person]:
        raise EditError(f"{person.username} is the last member, and a workspace has one at least")
    if person in workspace.members:
        workspace.members = [each for each in workspace.members if each is not person]
    else:
        workspace.members = [*workspace.members, person]
    return workspace


def _text(order: Order, name: str) -> str:
    value = order.get(name)
    if not isinstance(value, str) or not value:
        raise EditError(f"{order.get('action')} needs {name!r}")
    return value


def _row(world: World, order: Order, name: str = "repository") -> SandboxRepository:
    text = _text(order, name)
    owner, _, slug = text.partition("/") if "/" in text else ("{}", "", text)
    row = world.find(owner, slug)
    if row is None:
        raise EditError(f"there is no repository {text}")
    return row


def _workspace(world: World, order: Order, name: str) -> SandboxWorkspace:
    found = world.workspace(_text(order, name))
    if found is None:
        raise EditError(f"there is no workspace {order[name]}")
    return found


def _create(world: World, order: Order) -> SandboxRepository:
    rest = {key: value for key, value in order.items() if key in {*EDITABLE, "scm", "slug"}}
    if "repository" in order:
        owner, _, slug = _text(order, "repository").partition("/")
        order = {"workspace": owner, "name": order.get("name") or slug, "action": "create"}
        rest.setdefault("slug", slug)
    return create(world, _workspace(world, order, "workspace"), _text(order, "name"), **rest)


def _touch(world: World, order: Order) -> SandboxRepository:
    """Change `updated_on` and nothing else."""
    with world.changing(_row(world, order)) as kept:
        return kept


def _restore(world: World, order: Order) -> SandboxRepository:
    """Restore a deleted repository, with the same uuid."""
    row = world.gone(_text(order, "repository"))
    if row is None:
        raise EditError(f"no repository {order['repository']} was deleted")
    if world.find(row.workspace.slug, row.slug) is not None:
        raise EditError(f"there is another {row.full_name} now")
    with world.changing(row, touch=False) as kept:
        kept.deleted = False
    return kept


def _transfer(world: World, order: Order) -> SandboxRepository:
    """Move a repository to another workspace."""
    row, to = _row(world, order), _workspace(world, order, "to")
    if world.find(to.slug, row.slug) is not None:
        raise EditError(f"there is a repository {to.slug}/{row.slug} already")
    with world.changing(row) as kept:
        kept.workspace = to
    return kept


def _swap_names(world: World, order: Order) -> SandboxRepository:
    """Exchange the names of two repositories of one workspace."""
    row, other = _row(world, order), _row(world, order, "with")
    if row.workspace is not other.workspace or row.number == other.number:
        raise EditError("only two repositories of one workspace can swap names")
    with world.changing(row) as one, world.changing(other) as two:
        one.name, two.name = two.name, one.name
        one.slug, two.slug = two.slug, one.slug
    return one


def _push(world: World, order: Order, *, forced: bool = False) -> SandboxRepository:
    """Push a commit to a branch, by default the main one, which the first push creates.

    A forced push leaves out the commit that the branch was at; any other one follows it.
    """
    row = _row(world, order)
    branch = order.get("branch") or row.main_branch or ("default" if row.scm == "hg" else "master")
    return put_ref(world, row, "branch", branch, forced=forced)


def _edit(world: World, order: Order) -> SandboxRepository:
    fields = order.get("fields")
    if not isinstance(fields, dict):
        raise EditError("edit needs 'fields', an object")
    return edit(world, _row(world, order), fields, touch=bool(order["touch"]))


def _put(kind: str, *, must_exist: bool) -> Callable[[World, Order], SandboxRepository]:
    def put(world: World, order: Order) -> SandboxRepository:
        more = {name: order[name] for name in ("target", "annotated", "touch") if name in order}
        name = _text(order, "name")
        return put_ref(world, _row(world, order), kind, name, must_exist=must_exist, **more)

    return put


def _drop(kind: str) -> Callable[[World, Order], SandboxRepository]:
    def drop(world: World, order: Order) -> SandboxRepository:
        """Delete a branch or tag. A repository without branches is empty."""
        row, name = _row(world, order), _text(order, "name")
        if not any((ref.kind, ref.name) == (kind, name) for ref in world.refs_of(row)):
            raise EditError(f"there is no {kind} {name} in {row.full_name}")
        with world.changing_refs(row, touch=bool(order["touch"])) as refs:
            del refs[kind, name]
            branches = [each.name for each in refs.values() if each.kind == "branch"]
        with world.changing(row, touch=False) as kept:
            if kind == "branch" and kept.main_branch == name:
                kept.main_branch = branches[0] if branches else None
        return kept

    return drop


ACTIONS: dict[str, Callable[[World, Order], SandboxRepository]] = {
    "touch": _touch,
    "push": _push,
    "force_push": partial(_push, forced=True),
    "rename": lambda world, order: rename(world, _row(world, order), _text(order, "name")),
    "transfer": _transfer,
    "delete": lambda world, order: delete(world, _row(world, order)),
    "create": _create,
    "restore": _restore,
    "make_private": lambda world, order: edit(world, _row(world, order), {"is_private": True}),
    "make_public": lambda world, order: edit(world, _row(world, order), {"is_private": False}),
    "edit": _edit,
    "swap_names": _swap_names,
    "create_branch": _put("branch", must_exist=False),
    "delete_branch": _drop("branch"),
    "create_tag": _put("tag", must_exist=False),
    "move_tag": _put("tag", must_exist=True),
    "delete_tag": _drop("tag"),
}
WORKSPACE_ACTIONS: dict[str, Callable[[World, Order], SandboxWorkspace]] = {
    "rename_workspace": _rename_workspace,
    "delete_workspace": _delete_workspace,
    "restore_workspace": _restore_workspace,
    "add_member": _change_members,
    "remove_member": _change_members,
}
