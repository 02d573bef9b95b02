"""Random mirrors that overlap, and what a merge of them must give, computed row by row from their files."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from prepared_files import copy_empty

from mirror.lake.export import ExportOptions, export
from mirror.lake.place import Place
from mirror.store.export_marks import MIRROR_ID
from mirror.store.schema import HIDDEN

DAY = timedelta(days=1)
START = datetime(2026, 10, 1, tzinfo=UTC)
TABLES = ("repositories", "users", "branches", "tags", "changes", "projects", "followers", "members")
Rows = list[dict[str, Any]]


def moment(hours: float) -> str:
    """A moment, as mirrors write it."""
    return f"{START + timedelta(hours=hours):%Y-%m-%dT%H:%M:%S.000000Z}"


class RandomMirror:
    """A mirror of an upstream that others mirror too."""

    def __init__(self, path: Path, name: str, random: Random) -> None:
        copy_empty(path)
        self.path, self.name, self.random = path, name, random
        with closing(sqlite3.connect(path, isolation_level=None)) as self.db:
            self.db.execute("PRAGMA synchronous = OFF")
            self.db.execute("BEGIN")
            self.put("mirror_meta", key=MIRROR_ID, value=name)
            self.put("upstreams", id=1, name="any", kind="cloud", url="https://one.example/2.0", refs="api")
            self._fill()
            self.db.execute("COMMIT")

    def put(self, table: str, **values: Any) -> None:
        """Write a row, unless it is there."""
        marks = ", ".join("?" * len(values))
        sql = f"INSERT OR IGNORE INTO {table} ({', '.join(values)}) VALUES ({marks})"
        self.db.execute(sql, tuple(values.values()))

    def _moment(self) -> str:
        return moment(self.random.randint(0, 30))

    def _fill(self) -> None:
        random = self.random
        for number in range(4):
            gone = random.random() < 0.3
            self.put("users", id=number + 1, upstream_id=1, uuid=f"{{u{number}}}", username=f"u{number}",
                     display_name=self.name, kind="team", is_owner=random.randint(0, 1),
                     first_seen_at=self._moment(), last_seen_at=self._moment(),
                     deleted_at=self._moment() if gone else None)  # fmt: skip
        for number in range(2):
            self.put("projects", id=number + 1, upstream_id=1, owner_id=1, uuid=f"{{p{number}}}",
                     key=f"P{number}", name=self.name, is_private=random.choice((None, 0, 1)),
                     first_seen_at=self._moment(),
                     last_seen_at=self._moment())  # fmt: skip
        for user in random.sample(range(1, 5), random.randint(0, 3)):
            self.put(
                "members", workspace_id=1, user_id=user, permission=self.name, last_seen_at=self._moment()
            )
        for number in random.sample(range(7), random.randint(2, 7)):
            self._repository(number)

    def _repository(self, number: int) -> None:
        random, row = self.random, number + 1
        gone = random.random() < 0.4
        self.put("repositories", id=row, upstream_id=1, uuid=f"{{r{number}}}", owner_id=1, slug=f"r{number}",
                 name=self.name, full_name=f"u0/r{number}", is_private=random.randint(0, 1),
                 description=self.name, first_seen_at=self._moment(), last_seen_at=self._moment(),
                 refs_synced_at=random.choice((None, self._moment(), self._moment())),
                 deleted_at=self._moment() if gone else None, gone_reason="absent" if gone else None,
                 public_from=random.choice((0, random.randint(1, 20), HIDDEN)))  # fmt: skip
        for table in ("branches", "tags"):
            for name in random.sample("abc", random.randint(0, 3)):
                self.put(table, repository_id=row, name=name, target_hash=self.name, target_parents='["1"]')
        for user in random.sample(range(1, 5), random.randint(0, 2)):
            self.put("followers", repository_id=row, user_id=user)
        for _ in range(random.randint(0, 6)):
            self.put("changes", at=moment(random.randint(0, 90)), kind="branch_moved", repository_id=row,
                     ref=random.choice("ab"), old="1", new=random.choice((None, "2")))  # fmt: skip

    def rows(self) -> dict[str, Rows]:
        """All rows of the file, with identities in the place of numbers."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            found = {
                table: [
                    dict(row) | {"mirror": self.name} for row in connection.execute(f"SELECT * FROM {table}")
                ]
                for table in TABLES
            }
        uuids = {row["id"]: row["uuid"] for row in found["repositories"]}
        for table in ("branches", "tags", "changes", "followers"):
            for row in found[table]:
                row["repository_uuid"] = uuids[row["repository_id"]]
        return found


def random_lake(folder: Path, seed: int, count: int = 3) -> list[RandomMirror]:
    """Make mirrors, and export each into `folder / "lake"`."""
    mirrors = [
        RandomMirror(folder / f"{number}.db", f"m{number}", Random(seed * 100 + number))
        for number in range(count)
    ]
    for one in mirrors:
        export(one.path, Place(str(folder / "lake")), ExportOptions())
    return mirrors


def expected(mirrors: Iterable[RandomMirror]) -> dict[str, set[tuple[Any, ...]]]:
    """What the merge must give: of each table some columns that decide."""
    rows = [one.rows() for one in mirrors]
    all_rows = {table: [row for one in rows for row in one[table]] for table in TABLES}
    found = defaultdict[str, set[tuple[Any, ...]]](set)
    for uuid, held in _by(all_rows["repositories"], "uuid").items():
        best = min(held, key=lambda row: (_backwards(row["last_seen_at"]), row["mirror"]))
        read = min(held, key=lambda row: (_backwards(row["refs_synced_at"]), row["mirror"]))
        gone = all(row["deleted_at"] for row in held)
        found["repositories"].add(
            (
                uuid, best["description"], any(row["is_private"] for row in held), gone,
                best["deleted_at"] if gone else None, min(row["first_seen_at"] for row in held),
                read["public_from"] == HIDDEN, _hidden_until(all_rows["changes"], held),
                tuple(sorted(row["mirror"] for row in held)),
            )
        )  # fmt: skip
        for table, kind in (("branches", "branch"), ("tags", "tag")):
            for ref in all_rows[table]:
                if (ref["repository_uuid"], ref["mirror"]) == (uuid, read["mirror"]):
                    found["refs"].add((uuid, kind, ref["name"], ref["target_hash"]))
        for row in all_rows["followers"]:
            if (row["repository_uuid"], row["mirror"]) == (uuid, best["mirror"]):
                found["followers"].add((uuid, f"{{u{row['user_id'] - 1}}}"))
    for uuid, held in _by(all_rows["users"], "uuid").items():
        best = min(
            held, key=lambda row: (not row["is_owner"], _backwards(row["last_seen_at"]), row["mirror"])
        )
        owns, gone = any(row["is_owner"] for row in held), all(row["deleted_at"] for row in held)
        found["users"].add((uuid, best["display_name"], owns, gone))
    for uuid, held in _by(all_rows["projects"], "uuid").items():
        best = min(held, key=lambda row: (_backwards(row["last_seen_at"]), row["mirror"]))
        said = [row["is_private"] for row in held if row["is_private"] is not None]
        found["projects"].add((uuid, best["name"], bool(max(said)) if said else None))
    members = all_rows["members"]
    if members:
        latest = max(row["last_seen_at"] for row in members)
        reader = min(row["mirror"] for row in members if row["last_seen_at"] == latest)
        found["members"] = {
            (f"{{u{row['user_id'] - 1}}}", reader) for row in members if row["mirror"] == reader
        }
    found["changes"] = {
        (number, *row) for number, row in enumerate(sorted(_once(all_rows["changes"]), key=repr))
    }
    return found


def _hidden_until(changes: Rows, held: Rows) -> str | None:
    """The last moment that any mirror hides of a repository."""
    return max(
        (
            change["at"]
            for row in held
            for change in changes
            if (change["mirror"], change["repository_id"]) == (row["mirror"], row["id"])
            and change["id"] <= row["public_from"]
        ),
        default=None,
    )


def _by(rows: Rows, *names: str) -> dict[Any, Rows]:
    found = defaultdict[Any, Rows](list)
    for row in rows:
        found[row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)].append(row)
    return found


def _backwards(text: str | None) -> float:
    """Sort the latest first, and None last."""
    return -datetime.fromisoformat(text).timestamp() if text else 0.0


def _once(changes: Rows) -> list[tuple[Any, ...]]:
    """The n-th of equal changes of one mirror is the n-th of another one, within some days."""
    kept = list[tuple[Any, ...]]()
    for key, events in _by(changes, "repository_uuid", "kind", "ref", "old", "new").items():
        events.sort(key=lambda row: (row["at"], row["mirror"]))
        stretches, last = list[Rows](), None
        for event in events:
            at = datetime.fromisoformat(event["at"])
            if last is None or at > last + DAY:
                stretches.append([])
            stretches[-1].append(event)
            last = at
        for stretch in stretches:
            first = dict[int, str]()
            counts = defaultdict[str, int](int)
            for event in stretch:
                counts[event["mirror"]] += 1
                first.setdefault(counts[event["mirror"]], event["at"])
            kept += [(at, *key) for at in first.values()]
    return kept


COMPARED = {
    "refs": ("repository_uuid", "kind", "name", "target_hash"),
    "followers": ("repository_uuid", "user_uuid"),
    "users": ("uuid", "display_name", "is_owner", "gone"),
    "projects": ("uuid", "name", "is_private"),
    "members": ("user_uuid", "permission"),
}


def text(at: datetime | None) -> str | None:
    """A moment of the lake, as mirrors write it."""
    return f"{at:%Y-%m-%dT%H:%M:%S.%fZ}" if at else None


def merged_rows(tables: dict[str, Rows]) -> dict[str, set[tuple[Any, ...]]]:
    """The same columns of a merged lake."""
    changes = [
        (text(row["at"]), *(row[name] for name in ("repository_uuid", "kind", "ref", "old", "new")))
        for row in tables["changes"]
    ]
    return {
        "repositories": {
            (
                row["uuid"], row["description"], row["is_private"], row["gone"], text(row["deleted_at"]),
                text(row["first_seen_at"]), row["refs_hidden"], text(row["hidden_until"]),
                tuple(row["seen_by"]),
            )
            for row in tables["repositories"]
        },
        **{name: {tuple(row[column] for column in columns) for row in tables[name]}
           for name, columns in COMPARED.items()},
        "changes": {(number, *row) for number, row in enumerate(sorted(changes, key=repr))},
    }  # fmt: skip
