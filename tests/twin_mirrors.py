"""Random mirrors that differ only in private rows: public rows are equal.

All rows are written as they are, by SQL, so that the numbers of rows are free.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from mirror.store import Store
from mirror.store.schema import HIDDEN

THEN = "2026-01-{:02}T00:00:00.000000Z"
LISTED = "2026-06-01T00:00:00.000000Z"
KINDS = ("created", "updated", "branch_moved", "tag_created", "deleted", "restored")


def empty_mirror(path: Path) -> Path:
    """Make the file that all twins are copies of."""
    Store(path).close()
    return path


class Twin:
    """A mirror with the public part of one seed, and the private part of another."""

    def __init__(self, path: Path, empty: Path, public: int, private: int | None) -> None:
        """`private` None is a mirror that never held anything private."""
        shutil.copy(empty, path)
        self.public, self.private = Random(public), Random(private)
        self.has_private = private is not None
        self.number = 0
        self.change = 0
        self.users = dict[str, int]()
        self.hidden = list[int]()
        with closing(sqlite3.connect(path, isolation_level=None)) as self.db:
            self.db.execute("PRAGMA synchronous = OFF")
            self.db.execute("BEGIN")
            self._fill()
            self.db.execute("COMMIT")

    def put(self, table: str, **values: Any) -> None:
        """Write a row."""
        marks = ", ".join("?" * len(values))
        self.db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))

    def next_number(self) -> int:
        """Return the number of the next row; private rows and chance make gaps."""
        self.number += self.private.randint(1, 9) if self.has_private else 1
        return self.number

    def next_change(self) -> int:
        self.change += self.private.randint(1, 4) if self.has_private else 1
        return self.change

    def user(self, name: str, **said: Any) -> int:
        """Write a user once; what only private rows decide is random."""
        if name not in self.users:
            self.users[name] = self.next_number()
            secret = self.private.randint(1, 20)
            moments = (THEN.format(secret), THEN.format(secret + 5)) if self.has_private else (LISTED, LISTED)
            self.put(
                "users", id=self.users[name], upstream_id=1, uuid=f"{{{name}}}", username=name, kind="team",
                display_name=name.title(), is_owner=self.private.randint(0, 1), first_seen_at=moments[0],
                last_seen_at=moments[1], **said,
            )  # fmt: skip
        return self.users[name]

    def _fill(self) -> None:
        self.put("upstreams", id=1, name="cloud", kind="cloud", url="https://bitbucket.example", refs="api")
        for number in range(self.public.randint(1, 7)):
            self._hide()
            self._show(number)
        self._hide()
        self._note()

    def _show(self, number: int) -> None:
        """Write a public repository with its public data and, in a twin, its former private data."""
        random = self.public
        name, row = f"open{random.randint(0, 2)}", self.next_number()
        was_private = random.random() < 0.4
        closed = was_private and random.random() < 0.3
        parent = self._parent(random.choice(("none", "public", "hidden")))
        forks = random.choice((None, 0, 3))
        owner = self.user(name)
        key = random.choice((None, "PROJ"))
        public_from = 0
        if was_private:
            self._history(row)
            public_from = self.next_change()
            self.put("changes", id=public_from, at=THEN.format(20), repository_id=row, kind="made_public")
        seen = THEN.format(self.private.randint(1, 9)) if was_private else THEN.format(10)
        self.put(
            "repositories", id=row, upstream_id=1, uuid=f"{{repository-{number}}}", owner_id=owner,
            slug=f"tool-{number}", name=f"Tool {number}", full_name=f"{name}/tool-{number}", scm="git",
            is_private=0, description=random.choice((None, "Some words")), project_key=key,
            project_name=key, followers_count=random.choice((None, 5)), created_at=THEN.format(number + 1),
            forks_count=forks if forks is None else forks + self.private.randint(0, 5), first_seen_at=seen,
            last_seen_at=LISTED, refs_synced_at=LISTED, refs_stale=0,
            public_from=HIDDEN if closed else public_from, **parent,
        )  # fmt: skip
        if key:
            self._project(name, key)
        for ref in range(random.randint(0, 3)):
            self.put(
                "branches", repository_id=row, name=f"b{ref}", target_hash="a" * 40, target_author="A <a>"
            )
            self.put("tags", repository_id=row, name=f"t{ref}", target_hash="b" * 40, tagger="T <t>")
        if random.random() < 0.4:
            self.put("followers", repository_id=row, user_id=self.user(f"fan{random.randint(0, 1)}"))
        for _ in range(random.randint(0, 3)):
            kind = random.choice(KINDS)
            self.put("changes", id=self.next_change(), at=LISTED, repository_id=row, kind=kind, ref="b0",
                     old='{"name": "a"}', new='{"name": "b"}')  # fmt: skip

    def _parent(self, kind: str) -> dict[str, Any]:
        """Return the fields of a parent: a hidden one is private, gone, unknown, or there is none."""
        if kind == "public":
            rows = self.db.execute(
                """SELECT id, uuid, full_name FROM repositories
                   WHERE is_private = 0 AND deleted_at IS NULL ORDER BY id LIMIT 1"""
            ).fetchall()
            return (
                dict(zip(("parent_id", "parent_uuid", "parent_full_name"), rows[0], strict=True))
                if rows
                else {}
            )
        if kind == "none" or not self.has_private:
            return {}
        said = {"parent_uuid": "{hidden-parent}", "parent_full_name": "secret/parent"}
        known = self.private.choice((None, *self.hidden))
        return self.private.choice(({}, said, said | {"parent_id": known}))

    def _project(self, owner: str, key: str) -> None:
        there = self.db.execute("SELECT 1 FROM projects WHERE uuid = ?", (f"{owner}-{key}",)).fetchone()
        if not there:
            seen = THEN.format(self.private.randint(1, 20))
            self.put("projects", id=self.next_number(), upstream_id=1, owner_id=self.user(owner),
                     key=key, uuid=f"{owner}-{key}", name="Project",
                     first_seen_at=seen, last_seen_at=seen)  # fmt: skip

    def _history(self, row: int) -> None:
        """Write what happened while a repository was private."""
        if self.has_private:
            for _ in range(self.private.randint(0, 3)):
                kind = self.private.choice((*KINDS, "renamed", "transferred"))
                self.put("changes", id=self.next_change(), at=THEN.format(15), repository_id=row, kind=kind,
                         ref="secret-branch", old="secret/name", new="secret/other")  # fmt: skip

    def _hide(self) -> None:
        """Write private repositories, with all that belongs to them."""
        if not self.has_private:
            return
        random = self.private
        for _ in range(random.randint(0, 3)):
            row, name = self.next_number(), random.choice(("open0", "secret", "shy"))
            if (
                name != "open0"
            ):  # the moment when an owner of public rows was first seen may vary, not its being
                owner = self.user(name)
            elif "open0" in self.users or random.random() < 0.5:
                owner = self.user("open0")
            else:
                continue
            gone = random.random() < 0.3
            self.put(
                "repositories", id=row, upstream_id=1, uuid=f"{{hidden-{row}}}", owner_id=owner,
                slug=f"hidden-{row}", name=f"Hidden {row}", full_name=f"{name}/hidden-{row}",
                is_private=0 if gone else random.choice((1, 2)),
                project_key=random.choice((None, "PROJ", "DARK")),
                parent_id=random.choice((None, *self._public_ids())), forks_count=random.randint(0, 3),
                deleted_at=LISTED if gone else None, gone_reason="absent" if gone else None,
                first_seen_at=THEN.format(1), last_seen_at=LISTED, refs_synced_at=LISTED,
            )  # fmt: skip
            self.hidden.append(row)
            self.put("branches", repository_id=row, name="secret-branch", target_hash="c" * 40)
            self.put("tags", repository_id=row, name="secret-tag", target_hash="d" * 40)
            self.put("followers", repository_id=row, user_id=self.user(random.choice(("lurker", "fan9"))))
            self._history(row)
            if random.random() < 0.3:
                self._project(name, random.choice(("DARK", "PROJ")))

    def _public_ids(self) -> Iterator[int]:
        yield from (row[0] for row in self.db.execute("SELECT id FROM repositories WHERE is_private = 0"))

    def _note(self) -> None:
        """Write the runs of the crawl, and what else a mirror notes."""
        if self.has_private:
            self.put("upstreams", id=2, name="inside", kind="datacenter", url="https://inside.example")
            owner = self.user("secret")
            self.put("members", workspace_id=owner, user_id=self.user("shy"), last_seen_at=LISTED)
            self.put("api_tokens", name="t", token_hash="f" * 64, scope="read", created_at=LISTED)
            self.put("sync_failures", upstream_id=1, kind="refs", subject="secret/x", error="no",
                     first_at=LISTED, last_at=LISTED, attempts=1, next_try_at=LISTED)  # fmt: skip
            self.put("cursors", upstream_id=1, stream="x", value="{}", updated_at=LISTED)
            self.put(
                "sync_runs", upstream_id=1, kind="watch", started_at=LISTED, state="failed", error="secret/x"
            )
            self.put(
                "changes", id=self.next_change(), at=LISTED, user_id=owner, kind="owner_renamed", old="s"
            )
        requests = self.private.randint(0, 9)
        self.put("sync_runs", upstream_id=1, kind="full", started_at=LISTED, finished_at=LISTED,
                 state="complete", requests=requests, repositories_new=requests, error=None)  # fmt: skip
