"""Edits by name, as the control endpoint takes them: ``{"action": "push", "repository": "owner/slug"}``."""

from collections.abc import Callable
from typing import Any

from . import edits
from .edits import Refusal
from .model import Repository, Workspace, iso
from .world import World

Order = dict[str, Any]


def perform(world: World, order: Order, *, tags_touch: bool = True) -> dict[str, Any]:
    """Carry out one edit and tell what became of the repository or workspace; Refusal says why not."""
    action = str(order.get("action"))
    if action in WORKSPACE_ACTIONS:
        workspace = WORKSPACE_ACTIONS[action](world, order)
        members = [person.username for person in workspace.members]
        return {"workspace": workspace.slug, "uuid": workspace.uuid, "members": members}
    if action not in ACTIONS:
        raise Refusal(f"there is no action {action}; there are {', '.join([*ACTIONS, *WORKSPACE_ACTIONS])}")
    row = ACTIONS[action](world, {"touch": tags_touch or "tag" not in action, **order})
    facts = {"repository": row.full_name, "uuid": row.uuid, "updated_on": iso(row.updated)}
    return {**facts, "deleted": row.deleted}


def _rename_workspace(world: World, order: Order) -> Workspace:
    workspace = _workspace(world, order, "workspace")
    try:
        world.rename_workspace(workspace, _text(order, "name"))
    except ValueError as bad:
        raise Refusal(str(bad)) from None
    return workspace


def _delete_workspace(world: World, order: Order) -> Workspace:
    workspace = _workspace(world, order, "workspace")
    workspace.deleted = True
    return workspace


def _restore_workspace(world: World, order: Order) -> Workspace:
    workspace = world.gone_workspace(_text(order, "workspace"))
    if workspace is None:
        raise Refusal(f"no workspace {order['workspace']} was deleted")
    workspace.deleted = False
    return workspace


def _change_members(world: World, order: Order) -> Workspace:
    workspace, person = _workspace(world, order, "workspace"), world.person(_text(order, "name"))
    if person is None:
        raise Refusal(f"there is nobody called {order['name']}")
    if (person in workspace.members) is (order["action"] == "add_member"):
        raise Refusal(f"{person.username} is {'already' if person in workspace.members else 'not'} a member")
    if person in workspace.members:
        workspace.members = [each for each in workspace.members if each is not person]
    else:
        workspace.members = [*workspace.members, person]
    return workspace


def _text(order: Order, name: str) -> str:
    value = order.get(name)
    if not isinstance(value, str) or not value:
        raise Refusal(f"{order.get('action')} needs {name!r}")
    return value


def _row(world: World, order: Order, name: str = "repository") -> Repository:
    text = _text(order, name)
    owner, _, slug = text.partition("/") if "/" in text else ("{}", "", text)
    row = world.find(owner, slug)
    if row is None:
        raise Refusal(f"there is no repository {text}")
    return row


def _workspace(world: World, order: Order, name: str) -> Workspace:
    found = world.workspace(_text(order, name))
    if found is None:
        raise Refusal(f"there is no workspace {order[name]}")
    return found


def _create(world: World, order: Order) -> Repository:
    rest = {key: value for key, value in order.items() if key in {*edits.EDITABLE, "scm", "slug"}}
    if "repository" in order:
        owner, _, slug = _text(order, "repository").partition("/")
        order = {"workspace": owner, "name": order.get("name") or slug, "action": "create"}
        rest.setdefault("slug", slug)
    return edits.create(world, _workspace(world, order, "workspace"), _text(order, "name"), **rest)


def _restore(world: World, order: Order) -> Repository:
    row = world.gone(_text(order, "repository"))
    if row is None:
        raise Refusal(f"no repository {order['repository']} was deleted")
    return edits.restore(world, row)


def _edit(world: World, order: Order) -> Repository:
    fields = order.get("fields")
    if not isinstance(fields, dict):
        raise Refusal("edit needs 'fields', an object")
    return edits.edit(world, _row(world, order), fields, touch=bool(order["touch"]))


def _put(kind: str, *, must_exist: bool) -> Callable[[World, Order], Repository]:
    def put(world: World, order: Order) -> Repository:
        more = {name: order[name] for name in ("target", "annotated", "touch") if name in order}
        name = _text(order, "name")
        return edits.put_ref(world, _row(world, order), kind, name, must_exist=must_exist, **more)

    return put


def _drop(kind: str) -> Callable[[World, Order], Repository]:
    def drop(world: World, order: Order) -> Repository:
        return edits.drop_ref(
            world, _row(world, order), kind, _text(order, "name"), touch=bool(order["touch"])
        )

    return drop


ACTIONS: dict[str, Callable[[World, Order], Repository]] = {
    "touch": lambda world, order: edits.touch(world, _row(world, order)),
    "push": lambda world, order: edits.push(world, _row(world, order), order.get("branch")),
    "rename": lambda world, order: edits.rename(world, _row(world, order), _text(order, "name")),
    "transfer": lambda world, order: edits.transfer(
        world, _row(world, order), _workspace(world, order, "to")
    ),
    "delete": lambda world, order: edits.delete(world, _row(world, order)),
    "create": _create,
    "restore": _restore,
    "make_private": lambda world, order: edits.edit(world, _row(world, order), {"is_private": True}),
    "make_public": lambda world, order: edits.edit(world, _row(world, order), {"is_private": False}),
    "edit": _edit,
    "swap_names": lambda world, order: edits.swap_names(
        world, _row(world, order), _row(world, order, "with")
    ),
    "create_branch": _put("branch", must_exist=False),
    "delete_branch": _drop("branch"),
    "create_tag": _put("tag", must_exist=False),
    "move_tag": _put("tag", must_exist=True),
    "delete_tag": _drop("tag"),
}
WORKSPACE_ACTIONS: dict[str, Callable[[World, Order], Workspace]] = {
    "rename_workspace": _rename_workspace,
    "delete_workspace": _delete_workspace,
    "restore_workspace": _restore_workspace,
    "add_member": _change_members,
    "remove_member": _change_members,
}
