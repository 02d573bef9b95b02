"""Changes, as far as a caller may see them: filtered, latest first, paged by the id of the change.

Some kinds are unexpected: somebody wants to hear of them.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mirror.queries.refs import refs_state
from mirror.queries.rows import ChangeRow, Values
from mirror.queries.visibility import Caller, visible, visible_changes
from mirror.store.changes import RARE, RARE_KINDS
from mirror.store.rows import fetch, fetch_as, fetch_value
from mirror.store.schema import PSEUDO_TAG

# One index has the rare kinds, another the forced moves of main branches. SQLite uses them only for
# statements that repeat their conditions as they were made.
_RARE = f"c.kind IN ({RARE_KINDS})"
_IS_ITS_COMMIT = "t.repository_id = c.repository_id AND t.target_hash = c.old"
_NAMED_ELSEWHERE = f"""(EXISTS (SELECT 1 FROM branches t WHERE {_IS_ITS_COMMIT})
    OR EXISTS (SELECT 1 FROM tags t WHERE {_IS_ITS_COMMIT} AND t.name <> '{PSEUDO_TAG}'))"""

UNEXPECTED: Mapping[str, str] = {
    "tag-moved": f"({_RARE} AND c.kind = 'tag_moved')",
    "tag-gone": f"({_RARE} AND c.kind = 'tag_deleted')",
    "main-forced": "(c.forced = 1 AND c.is_main = 1)",
    "branch-lost": f"({_RARE} AND c.kind = 'branch_deleted' AND NOT {_NAMED_ELSEWHERE})",
    "repository-gone": f"({_RARE} AND c.kind = 'deleted')",
    "made-public": f"({_RARE} AND c.kind = 'made_public')",
    "transferred": f"({_RARE} AND c.kind = 'transferred')",
}
"""Conditions in SQL on a change `c` of a repository `r`, by the names that alerts and pages use."""

TITLES: Mapping[str, str] = {
    "tag-moved": "Tags that moved",
    "tag-gone": "Tags that vanished",
    "main-forced": "Main branches that were force-pushed",
    "branch-lost": "Branches deleted, whose commit no other branch or tag names today",
    "repository-gone": "Repositories gone",
    "made-public": "Repositories made public",
    "transferred": "Repositories transferred",
}
"""What each is called on pages."""


def lines_of_run(
    connection: sqlite3.Connection,
    name: str,
    upstream: str,
    changes: tuple[int, int],
    forced: Sequence[int] = (),
) -> list[str]:
    """Say in a line each what a run of an upstream, and webhooks since the run before it, found of one kind.

    `changes` are the numbers of the last change before and the last one of them. `forced` are earlier ones
    of which the run found that they were forced.
    """

    def among(condition: str) -> str:
        return f"""SELECT c.id, r.full_name, c.kind, c.ref, substr(c.old, 1, 40), substr(c.new, 1, 40)
            FROM changes c CROSS JOIN repositories r ON r.id = c.repository_id
            CROSS JOIN upstreams up ON up.id = r.upstream_id
            WHERE up.name = :upstream AND {UNEXPECTED[name]} AND {condition}"""

    after, until = changes
    found = fetch(
        connection,
        f"""{among("c.id > :after AND c.id <= :until")} UNION ALL
            {among("c.id <= :after AND c.id IN (SELECT value FROM json_each(:forced))")} ORDER BY 1""",
        {"upstream": upstream, "after": after, "until": until, "forced": json.dumps(forced)},
    )
    return [
        " ".join(filter(None, (full_name, kind.replace("_", " "), ref, f"{old or ''} -> {new or ''}")))
        for _, full_name, kind, ref, old, new in found
    ]


KINDS = {
    "repositories": (
        "created", "updated", "renamed", "transferred", "made_private", "made_public", "deleted", "restored",
        "owner_renamed",
    ),
    "branches": ("branch_created", "branch_moved", "branch_deleted"),
    "tags": ("tag_created", "tag_moved", "tag_deleted"),
}  # fmt: skip
"""All kinds of changes, in groups; the name of a group stands for all its kinds."""

OF_OWNERS = frozenset({"owner_renamed"})
"""Kinds of changes that are about an owner; all others are about a repository."""
EXPORTED = ("at", "kind", "upstream", "repository", "owner", "ref", "old", "new")
"""The keys of each change in `mirror changes --json`, besides `forced`."""

_EXPRESSIONS = {
    "repository": "r.full_name",
    "owner_id": "u.id",
    "owner": "u.username",
    "upstream": "up.name",
    "upstream_id": "up.id",
    "is_gone": "iif(r.id IS NULL, u.deleted_at, r.deleted_at) IS NOT NULL",
    "refs": f"iif(c.kind = 'created', {refs_state()}, NULL)",
}
_COLUMNS = ", ".join(_EXPRESSIONS.get(field, f"c.{field}") for field in ChangeRow.__struct_fields__)
_SOURCE = """changes c LEFT JOIN repositories r ON r.id = c.repository_id
    LEFT JOIN users u ON u.id = coalesce(c.user_id, r.owner_id)
    LEFT JOIN upstreams up ON up.id = coalesce(r.upstream_id, u.upstream_id)"""


# The time of a change is that of the look that found it, and it is written within a day. So ids bound what is
# read, unless a clock was wrong once: then changes beyond such an id have the nearest, or the utmost, time.


def _last_id(moment: str) -> str:
    """Return the condition that a change was written until a day after a moment, a parameter."""
    later = _first_found(f"at > {_shifted(moment, '+1 day')} ORDER BY at")
    nearest = _first_found(f"at < {moment} ORDER BY at DESC")
    first = _first_found("at > '' ORDER BY at")
    return f"c.id <= iif({later} >= max(coalesce({nearest}, {first}), {first}), {later}, 1 << 62)"


def _first_id(moment: str) -> str:
    """Return the condition that a change was written from a day before a moment on."""
    earlier = _first_found(f"at < {_shifted(moment, '-1 day')} ORDER BY at DESC")
    nearest = _first_found(f"at >= {moment} ORDER BY at")
    last = _first_found("at > '' ORDER BY at DESC")
    return f"c.id >= iif({earlier} <= min(coalesce({nearest}, {last}), {last}), {earlier}, 0)"


def _first_found(which: str) -> str:
    return f"(SELECT id FROM changes WHERE {which} LIMIT 1)"


def _shifted(moment: str, by: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%S', substr({moment}, 1, 19), '{by}')"


_MOST_LIKE = 20  # letters: connections of visitors take patterns of 100 bytes


class ChangeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes to read. A field that is None or empty does not filter.

    - `unexpected`: names of UNEXPECTED.
    - `owner_ids`: ids of `users`.
    - `since`, `until`: moments; `until` is exclusive.
    - `before`: the id of a change, exclusive.
    - `forks`: of `created` changes, only those of forks (True) or of others (False).
    """

    kinds: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    owner: str = ""
    upstream: str = ""
    ref: str = ""
    repository_id: int | None = None
    owner_ids: tuple[int, ...] = ()
    forks: bool | None = None
    since: str = ""
    until: str = ""
    before: int | None = None

    @property
    def is_about_few(self) -> bool:
        """Whether the changes of a repository or of owners are wanted, which their own indexes find."""
        return self.repository_id is not None or bool(self.owner_ids)

    def each_by_index(self) -> list["ChangeFilter"]:
        """Return filters that find the same changes together, each by an index if there is one."""
        if self.unexpected:
            return [msgspec.structs.replace(self, unexpected=(name,)) for name in self.unexpected]
        if not self.is_about_few and frozenset(self.kinds) <= frozenset(RARE):
            return [msgspec.structs.replace(self, kinds=(kind,)) for kind in self.kinds] or [self]
        return [self]

    def conditions(self, caller: Caller) -> list[str]:
        """Return the conditions in SQL, for a caller who sees no other changes than `visible_changes`."""
        is_fork = f"r.parent_full_name IS {'NOT ' if self.forks else ''}NULL"
        each = {
            self._of_kinds(): self.kinds,
            " OR ".join(UNEXPECTED[name] for name in self.unexpected).join("()"): self.unexpected,
            "c.repository_id = :repository_id": self.repository_id is not None,
            self._of_owners(caller): self.owner_ids,
            "u.username = :owner COLLATE NOCASE": self.owner,
            "up.name = :upstream": self.upstream,
            # LIKE takes a third of the time, and nearly all fail it; `instr` decides on the others.
            "(c.ref LIKE :like_ref AND instr(lower(c.ref), lower(:ref)) > 0)": self.ref,
            f"(c.kind <> 'created' OR {is_fork})": self.forks is not None,
            # The `+` makes SQLite follow the order of ids, not the index of times.
            "+c.at >= :since": self.since,
            "+c.at < :until": self.until,
            _first_id(":since"): self.since and not self.is_about_few,
            _last_id(":until"): self.until and not self.is_about_few,
            "c.id < :before": self.before is not None,
        }
        return [condition for condition, is_asked in each.items() if is_asked]

    def _of_kinds(self) -> str:
        """Return the condition on the kind."""
        if len(self.kinds) == 1 and self.kinds[0] in RARE and not self.is_about_few:
            # The condition of the index, as it was made: otherwise SQLite does not use it.
            return f"(c.kind IN ({RARE_KINDS}) AND c.kind = json_extract(:kinds, '$[0]'))"
        return "c.kind IN (SELECT value FROM json_each(:kinds))"

    def _of_owners(self, caller: Caller) -> str:
        """Return the condition that a change is about some owners, or about a repository of theirs."""
        among = "IN (SELECT value FROM json_each(:owner_ids))"
        # Changes of hidden repositories are not even read, so that they cost no time.
        of_repositories = f"""c.repository_id IN
            (SELECT o.id FROM repositories o WHERE o.owner_id {among} AND {visible(caller, "o")})"""
        if self.kinds and OF_OWNERS.isdisjoint(self.kinds):  # there is an index by repository, none by user
            return of_repositories
        return f"(c.user_id {among} OR {of_repositories})"

    def values(self) -> Values:
        """Return the values of the parameters of the conditions."""
        lists = {"kinds": json.dumps(self.kinds), "owner_ids": json.dumps(self.owner_ids), "unexpected": ""}
        # A part without LIKE's own signs, and short: many of them would take long, and so would a long one.
        plain = max(re.split(r"[%_\0]", self.ref), key=len)[:_MOST_LIKE]
        return msgspec.structs.asdict(self) | lists | {"like_ref": f"%{plain}%"}


class ChangesPage(msgspec.Struct, frozen=True):
    """Some changes, and whether there are more of them."""

    rows: list[ChangeRow]
    more: bool


def latest_changes(
    connection: sqlite3.Connection, caller: Caller, wanted: ChangeFilter, *, limit: int, offset: int = 0
) -> ChangesPage:
    """Read a page of changes, latest first."""
    if wanted.owner and not wanted.owner_ids:
        named = "SELECT id FROM users WHERE username = :owner COLLATE NOCASE"
        found = fetch(connection, named, wanted.values())
        if not found:
            return ChangesPage([], more=False)
        wanted = msgspec.structs.replace(wanted, owner_ids=tuple(row_id for (row_id,) in found))
    each = wanted.each_by_index()
    if len(each) > 1:
        most = limit + offset  # of each, since any of them may fill the page
        pages = [latest_changes(connection, caller, one, limit=most + 1) for one in each]
        rows = sorted((row for page in pages for row in page.rows), key=lambda row: -row.id)
        return ChangesPage(rows[offset:most], len(rows) > most)
    by, earlier, _ = _order(connection, caller, wanted)
    found = fetch_as(
        ChangeRow,
        connection,
        f"""SELECT {_COLUMNS} FROM {_SOURCE} WHERE {_where(caller, wanted)} AND {earlier}
            ORDER BY {by} DESC LIMIT :most OFFSET :offset""",
        {**caller.values, **wanted.values(), "at": wanted.until, "most": limit + 1, "offset": offset},
    )
    return ChangesPage(found[:limit], len(found) > limit)


class Timeline(msgspec.Struct, frozen=True):
    """The moments of changes around a state, oldest first; `position` is that of the state.

    Each moment stands for the state from then on. There are at most MOMENTS before the state, and after it.
    """

    moments: list[str]
    position: int

    @property
    def previous(self) -> str | None:
        """The moment of the state before."""
        return self.moments[self.position - 1] if self.position > 0 else None

    @property
    def following(self) -> str | None:
        """The moment of the state after."""
        return self.moments[self.position + 1] if self.position + 1 < len(self.moments) else None


MOMENTS = 100
_LINES = 5 * MOMENTS
"""The number of changes to read for MOMENTS: several changes may have the same moment."""


def timeline(
    connection: sqlite3.Connection, caller: Caller, wanted: ChangeFilter, at: str, *, since: str | None = None
) -> Timeline:
    """Read the moments of changes around `at`, "" for today; `since` is the first known state."""
    by, earlier, later = _order(connection, caller, wanted)

    def moments(condition: str, order: str) -> list[str]:
        sql = f"""SELECT c.at FROM {_SOURCE} WHERE {_where(caller, wanted)} AND {condition}
            ORDER BY {by} {order} LIMIT {_LINES}"""
        # A tilde sorts after every moment.
        found = fetch(connection, sql, {**caller.values, **wanted.values(), "at": at or "~"})
        return sorted(dict.fromkeys(moment for (moment,) in found))

    before = moments(f"+c.at <= :at AND {earlier}", "DESC")[-MOMENTS:]
    after = moments(f"+c.at > :at AND {later}", "") if at else []
    if since is not None:
        is_whole = len(before) < MOMENTS
        before = [*([since] if is_whole else []), *(moment for moment in before if moment > since)]
    return Timeline([*before, *after[:MOMENTS]], max(0, len(before) - 1))


def count_changes(connection: sqlite3.Connection, caller: Caller, wanted: ChangeFilter) -> int:
    """Count all changes that match."""
    sql = f"SELECT count(*) FROM {_SOURCE} WHERE {_where(caller, wanted)}"
    return int(fetch_value(connection, sql, {**caller.values, **wanted.values()}))


def changes_since(connection: sqlite3.Connection, caller: Caller, moment: str) -> Iterator[ChangeRow]:
    """Yield the changes that were seen at or after a moment, in order."""
    cursor = connection.cursor()
    cursor.row_factory = None
    cursor.execute(
        f"SELECT {_COLUMNS} FROM {_SOURCE} WHERE c.at >= :since AND {visible_changes(caller)} ORDER BY c.id",
        {**caller.values, "since": moment},
    )
    return (ChangeRow(*row) for row in cursor)


FEW = 20_000
"""The most changes of owners that are all read and sorted."""


def _order(connection: sqlite3.Connection, caller: Caller, wanted: ChangeFilter) -> tuple[str, str, str]:
    """Return the order by id, and conditions for what is before and after the moment `:at`."""
    # Few changes of owners are found by an index. If there are many, it is faster to read all changes from
    # the moment on, until enough of the owners' are found.
    if not wanted.owner_ids:
        return "c.id", "1", "1"
    count = fetch_value(
        connection,
        f"""SELECT count(*) FROM (SELECT 1 FROM repositories r JOIN changes c ON c.repository_id = r.id
            WHERE r.owner_id IN (SELECT value FROM json_each(:owner_ids)) AND {visible(caller, "r")}
            LIMIT {FEW + 1})""",
        {**caller.values, **wanted.values()},
    )
    return ("+c.id", "1", "1") if count <= FEW else ("c.id", _last_id(":at"), _first_id(":at"))


def _where(caller: Caller, wanted: ChangeFilter) -> str:
    return " AND ".join([visible_changes(caller), *wanted.conditions(caller)])
