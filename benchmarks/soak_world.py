"""The hostile sandbox of a soak test: people edit, responses fail, the server goes down; and its webhooks.

Some repositories are *still*: they are pushed to and edited, but keep their names, owners and visibility, so
that readers must always find them.
"""

import contextlib
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mirror.sandbox import TOKEN, Fault, Sandbox, World, repository_refs, running, visible_repositories

WHAT = {
    "push": 40, "edit": 8, "touch": 4, "create_branch": 8, "delete_branch": 8, "create_tag": 6, "move_tag": 4,
    "delete_tag": 6, "create": 4, "delete": 5, "restore": 1, "rename": 4, "swap_names": 2, "transfer": 2,
    "make_private": 2, "make_public": 2, "rename_workspace": 1,
}  # fmt: skip
"""What people do, and the relative frequencies. The world hardly grows, so memory need not either."""

STILL = {"push", "edit", "touch", "create_branch", "delete_branch", "create_tag", "move_tag", "delete_tag"}
HOOKS = {
    "create": "repo:created", "delete": "repo:deleted", "transfer": "repo:transfer", "edit": "repo:updated",
    "rename": "repo:updated", "swap_names": "repo:updated", "make_private": "repo:updated",
    "make_public": "repo:updated",
}  # fmt: skip
FAULTS = (
    "429", "500", "500", "503", "502", "404", "410", "403", "401", "hang", "slow", "drip", "drop", "reset",
    "truncate", "html", "invalid_json", "empty", "nonsense", "bad_row", "page_500", "redirect",
    "foreign_next", "loop_next", "gzip_bomb",
)  # fmt: skip
PLACES = ("listing", "listing", "refs", "refs", "refs", "repository", "workspace", "members", "user", "*")
STILL_SHARE = 3
REQUESTS_PER_HOUR = 1_000_000
"""High enough, because this is no test of the budget."""


class Event(NamedTuple):
    """A webhook event: its key and its body."""

    key: str
    body: dict[str, Any]


class Hostile:
    """A sandbox at a fixed port, and what happens to it; `tell` is called with the event of each edit."""

    def __init__(self, repositories: int, port: int, seed: int, tell: Callable[[Event], None]) -> None:
        self.sandbox = Sandbox(World(repositories, seed=seed), requests_per_hour=REQUESTS_PER_HOUR)
        self.port, self.url = port, f"http://127.0.0.1:{port}/2.0"
        self.edits = self.refused = self.faults = self.struck = self.restarts = 0
        self._random, self._tell = random.Random(seed), tell
        self._open = contextlib.ExitStack()
        workspaces = self.sandbox.workspaces()
        self.still_workspaces = [slug for n, slug in enumerate(workspaces) if n % STILL_SHARE == 0]
        rows = list(visible_repositories(self.sandbox.world))
        self.still = [row for row in rows if self._is_still(row["full_name"])]
        self._gone = list[str]()
        self._made = 0

    def _is_still(self, full_name: str) -> bool:
        return full_name.partition("/")[0] in self.still_workspaces

    def open(self) -> None:
        """Start to answer."""
        self._open.enter_context(running(self.sandbox, port=self.port))

    def close(self) -> None:
        """Go down, also in the middle of a response."""
        self._open.close()

    def restart(self, seconds: float) -> None:
        """Go down for some time."""
        self.close()
        time.sleep(seconds)
        self.open()
        self.restarts += 1

    def fault(self) -> None:
        """Make one or a few of the next requests fail, in some way."""
        pick = self._random
        what = pick.choice(FAULTS)
        self.sandbox.add_fault(
            Fault(
                what=what,
                where=pick.choice(PLACES),
                nth=pick.randint(1, 20),
                times=1 if what in {"401", "page_500", "hang"} else pick.randint(1, 4),
                retry_after=pick.choice(["1", "date:1", "2"]) if what == "429" else None,
                seconds=pick.uniform(0.2, 1.5),
            )
        )
        self.faults += 1

    def relent(self) -> None:
        """Clear all faults."""
        self.struck += sum(fault["fired"] for fault in self.sandbox.state()["faults"])
        self.sandbox.clear_faults()

    def edit(self) -> None:
        """Perform one edit, and report it."""
        action = self._random.choices(list(WHAT), list(WHAT.values()))[0]
        try:
            self._do(action)
            self.edits += 1
        except (ValueError, LookupError):
            self.refused += 1  # a name that is taken, a ref that does not exist

    def _do(self, action: str) -> None:
        self._made += 1
        name, details = self._order(action)
        before = self._refs(name) if action in STILL else {}
        done = self.sandbox.do(action, name, **details)
        if "repository" not in done:
            return
        if action == "delete":
            self._gone.append(done["uuid"])
        after = self._refs(done["repository"]) if action in STILL else {}
        changes = [
            {"old": before.get(ref), "new": after.get(ref)}
            for ref in sorted(before.keys() | after.keys())
            if _target(before.get(ref)) != _target(after.get(ref))
        ]
        self._say(action, {"uuid": done["uuid"], "full_name": done["repository"]}, changes)

    def _order(self, action: str) -> tuple[str | None, dict[str, Any]]:
        """Choose what to edit, and return the details of the edit."""
        pick = self._random
        moving = [slug for slug in self.sandbox.workspaces() if slug not in self.still_workspaces]
        if action == "rename_workspace":
            return None, {"workspace": pick.choice(moving), "name": f"team-{self._made}"}
        if action == "create":
            details = {"main_branch": "main", "is_private": pick.random() < 0.2}
            return f"{pick.choice(moving)}/new-{self._made}", details
        if action == "restore":
            return (self._gone.pop(pick.randrange(len(self._gone))) if self._gone else "none"), {}
        name = self._victim(self.sandbox.workspaces() if action in STILL else moving)
        return name, self._details(action, name, moving)

    def _victim(self, workspaces: list[str]) -> str:
        """Choose a repository, the older ones of a workspace more often."""
        pick, world = self._random, self.sandbox.world
        workspace = world.workspace(pick.choice(workspaces))
        numbers = list(world.order(workspace, "created_on", TOKEN)) if workspace else []
        row = world.get(numbers[int(len(numbers) * pick.random() ** 3)]) if numbers else None
        if row is None:
            raise LookupError("an empty workspace")
        return row.full_name

    def _details(self, action: str, name: str, moving: list[str]) -> dict[str, Any]:  # noqa: PLR0911
        """Return the details of an edit of a repository."""
        pick = self._random
        match action:
            case "push":
                branches = self._names(name, tags=False)
                return {"branch": pick.choice(branches)} if branches and pick.random() < 0.7 else {}
            case "edit":
                return {"fields": {"description": f"said {self._made}"}}
            case "rename":
                return {"name": f"renamed {self._made}"}
            case "swap_names":
                return {"with": self._victim([name.partition("/")[0]])}
            case "transfer":
                return {"to": pick.choice(moving)}
            case "create_branch" | "create_tag":
                return {"name": f"ref-{self._made}"}
            case "delete_branch" | "move_tag" | "delete_tag":
                return {"name": pick.choice(self._names(name, tags="tag" in action) or ["none"])}
            case _:
                return {}

    def _names(self, name: str, *, tags: bool) -> list[str]:
        return [ref for kind, ref in self._refs(name) if (kind == "tag") is tags]

    def _refs(self, name: str | None) -> dict[tuple[str, str], dict[str, Any]]:
        return {(ref["type"], ref["name"]): ref for ref in repository_refs(self.sandbox.world, name or "")}

    def _say(self, action: str, repository: dict[str, str], changes: list[dict[str, Any]]) -> None:
        if changes:
            self._tell(Event("repo:push", {"repository": repository, "push": {"changes": changes}}))
        if action in HOOKS:
            self._tell(Event(HOOKS[action], {"repository": repository, "number": self._made}))


def _target(ref: dict[str, Any] | None) -> str | None:
    return ref["target"]["hash"] if ref else None
