"""Simulated people who push, tag, rename, create and delete at random moments.

Edits that are due are made before the next request is answered. So nothing runs between requests, and clients
cannot tell the difference.
"""

import json
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from operator import index
from pathlib import Path

from mirror.sandbox.edits import EditError, Order, perform
from mirror.sandbox.model import SandboxRepository
from mirror.sandbox.vocabulary import STEMS
from mirror.sandbox.world import World

PER_MINUTE = 20.0
MOST_AT_ONCE = 200
"""The most edits to make before one request, after a long time without any."""

MOST_KEPT = 30_000
"""The number of edits that a journal nears: 3 MB, repeated in three seconds at the start."""

_RAREST = 0.001
"""The share of the rate that remains when a journal is full: about one edit an hour."""

_WEIGHTS = {
    "push": 50,
    "force_push": 2,
    "create_branch": 14,
    "delete_branch": 8,
    "create_tag": 10,
    "edit": 6,
    "rename": 4,
    "create": 5,
    "delete": 2,
    "restore": 1,
}
"""Actions, and how often they happen relative to each other."""

_TRIES = 20


class Lively:
    """Edits a world at random moments, `per_minute` on average; the same seed makes the same edits.

    - `clock`: seconds that never go back.
    - `journal`: a file of the edits that were made. They are repeated at the start, so that a mirror does not
      see the world start again. A thousand take a tenth of a second.
    - `most_kept`: edits become rarer as the journal nears this number, so that it stays small.
    """

    def __init__(
        self,
        world: World,
        *,
        per_minute: float = PER_MINUTE,
        seed: int = 1,
        clock: Callable[[], float] = time.monotonic,
        journal: Path | None = None,
        most_kept: int = MOST_KEPT,
    ) -> None:
        self._world, self._per_second, self._clock = world, per_minute / 60, clock
        self._journal, self._most_kept = journal, most_kept
        self._gone = list[str]()
        self._kept = self._repeat()
        self._draw = random.Random(seed + self._kept)
        self._due = clock() + self._pause()

    def catch_up(self) -> list[Order]:
        """Make the edits that are due, and return them."""
        now, done = self._clock(), list[Order]()
        for _ in range(MOST_AT_ONCE):
            if self._due > now:
                return done
            self._due += self._pause()
            order = self._order()
            if order is not None:
                at = self._world.clock.now()
                if self._make(order, at):
                    self._keep(order, at)
                    done.append(order)
        self._due = now + self._pause()
        return done

    def _keep(self, order: Order, at: int) -> None:
        """Add an edit to the journal."""
        if self._journal is None:
            return
        self._kept += 1
        line = json.dumps({"at": at, **order})
        with suppress(OSError):  # the next start has an older world, as without a journal
            file = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, f"\n{line}".encode())  # the line end first: a torn line spoils no other
            finally:
                os.close(file)

    def _repeat(self) -> int:
        """Repeat the edits of the journal, each at its time; return their number."""
        try:
            lines = self._journal.read_bytes().splitlines() if self._journal else []
        except OSError:
            return 0
        now = self._world.clock.now()
        for line in lines:
            # Skips a line that was cut off or is not ours.
            with suppress(ValueError, AttributeError, KeyError, TypeError, RecursionError):
                order = json.loads(line)
                self._make(order, min(max(index(order.pop("at")), 0), now))
        return len(lines)

    def _pause(self) -> float:
        """Draw the time until the next edit, which becomes longer as the journal fills."""
        share = max(1 - self._kept / self._most_kept, _RAREST)
        return self._draw.expovariate(self._per_second * share)

    def _make(self, order: Order, at: int) -> bool:
        """Make an edit at a moment; return False if it is not possible: a name is taken, a branch is gone."""
        try:
            with self._world.clock.stopped(at):
                perform(self._world, order)
        except EditError:
            return False
        if order["action"] == "delete":
            self._gone.append(order["repository"])
        elif order["action"] == "restore" and order["repository"] in self._gone:
            self._gone.remove(order["repository"])
        return True

    def _order(self) -> Order | None:
        """Draw an action and its repository; None if there is no repository for it."""
        (action,) = self._draw.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        if action == "restore":
            return {"action": action, "repository": self._gone.pop()} if self._gone else None
        if action == "create":
            home = self._draw.choice(self._world.workspaces).slug
            return {"action": action, "workspace": home, "name": self._name(), "main_branch": "main"}
        row = self._repository()
        if row is None:
            return None
        return {"action": action, "repository": row.full_name, **self._details(action, row)}

    def _details(self, action: str, row: SandboxRepository) -> Order:
        if action in ("create_branch", "rename"):
            return {"name": f"feature/{self._name()}" if action == "create_branch" else self._name()}
        if action == "create_tag":
            return {"name": f"v{self._draw.randint(1, 9)}.{self._draw.randint(0, 99)}"}
        if action == "edit":
            return {"fields": {"description": f"Now with {self._name().replace('-', ' and ')}"}}
        if action == "delete_branch":
            refs = self._world.refs_of(row)
            names = [ref.name for ref in refs if ref.kind == "branch" and ref.name != row.main_branch]
            return {"name": self._draw.choice(names)} if names else {"name": "none"}
        return {}

    def _name(self) -> str:
        return f"{self._draw.choice(STEMS)}-{self._draw.choice(STEMS)}"

    def _repository(self) -> SandboxRepository | None:
        """Draw a repository that is not deleted."""
        for _ in range(_TRIES if self._world.numbers else 0):
            row = self._world.get(self._draw.choice(self._world.numbers))
            if row is not None:
                return row
        return None
