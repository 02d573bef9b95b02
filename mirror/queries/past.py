"""A repository as the mirror knew it at a moment: its row of today, with what changed since undone.

`changes` says what each change replaced, so undoing them, the newest first, leads back to any moment since
the mirror first looked. What is not recorded is None. The mirror only knows what it saw: between two looks
the upstream may have changed already, so the looks around the moment are told beside the values.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from mirror.errors import NotFound
from mirror.queries.caller import Caller
from mirror.queries.refs import KINDS, select_refs
from mirror.queries.rows import AccountRow, RefRow, fetch, fetch_as, fetch_dicts
from mirror.queries.visibility import is_own, visible
from mirror.store.changes import CLOSED
from mirror.store.history import compacted_before
from mirror.store.refs import PSEUDO_TAG
from mirror.store.schema import snapshot_moment

NOT_RECORDED = (
    "size", "followers_count", "forks_count", "project_name", "project_uuid", "avatar_url", "clone_https",
    "clone_ssh", "updated_at",
)  # fmt: skip
"""Columns whose changes are not recorded. Those of the parent and `created_at` never change."""

_OF_COMMITS = (
    "target_date", "target_author", "target_author_name", "target_author_uuid", "target_message",
    "target_parents",
)  # fmt: skip
_OF_REFS = {f"{kind}_{verb}": kind for kind in KINDS for verb in ("created", "moved", "deleted")}


class Looks(msgspec.Struct, frozen=True):
    """The recorded looks around a moment: the last one until then and the first one since; None for none."""

    before: str | None
    after: str | None


class PastRef(msgspec.Struct, frozen=True):
    """A branch or a tag at a moment; `next_target` is its commit at the look after, None if it was gone."""

    row: RefRow
    looks: Looks
    next_target: str | None

    def exported(self) -> dict[str, Any]:
        """Return the looks as shown to a reader."""
        return {
            "seen_at": self.looks.before,
            "next_look": self.looks.after,
            "next_target": self.next_target if self.looks.after else None,
        }


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A repository at a moment.

    - `columns`: its row of `repositories`; `last_seen_at` and `refs_synced_at` are the looks before.
    - `looks`: at the row; `ref_looks`: at all its branches and tags.
    - `is_current`: the mirror has not looked at the row since, so that all its columns are of the moment.
    - `since`: the moment from which on its past is known.
    - `to_the_day`: older history was compacted, so that only the first and last state of a day are kept.
    """

    at: str
    columns: dict[str, Any]
    refs: list[PastRef]
    looks: Looks
    ref_looks: Looks
    is_current: bool
    since: str
    to_the_day: bool

    @property
    def full_name(self) -> str:
        """Its name at the moment."""
        return str(self.columns["full_name"])

    @property
    def namespace(self) -> str:
        """The name of its owner at the moment, in lower case."""
        return self.full_name.partition("/")[0].lower()

    @property
    def not_recorded(self) -> tuple[str, ...]:
        """The columns that are None because their past is not recorded."""
        return () if self.is_current else NOT_RECORDED

    def refs_by_name(self) -> dict[tuple[str, str], PastRef]:
        """Map kind and name to the branches and tags."""
        return {(ref.row.kind, ref.row.name): ref for ref in self.refs}

    def bounds(self) -> dict[str, Any]:
        """Return how much is known, for JSON."""
        return {
            "at": self.at,
            "known_since": self.since,
            "looks": {"repository": _plain(self.looks), "refs": _plain(self.ref_looks)},
            "exact_to": "day" if self.to_the_day else "look",
            "not_recorded": self.not_recorded,
        }


def _plain(looks: Looks) -> dict[str, str | None]:
    return msgspec.structs.asdict(looks)


class _Line(NamedTuple):
    """A change of the repository, as far as the caller may see it."""

    id: int
    at: str
    kind: str
    ref: str | None
    old: str | None
    new: str | None
    run_id: int | None
    previous_look: str | None


def past_of(connection: sqlite3.Connection, caller: Caller, row_id: int, at: str) -> Past:
    """Rebuild the repository of a row at a moment; raises NotFound where nothing is known of it then."""
    found = next(_pasts(connection, caller, [row_id], at, with_refs=True), None)
    if isinstance(found, Past):
        return found
    raise found or NotFound("the mirror holds no such repository")


def pasts_owned(connection: sqlite3.Connection, caller: Caller, owner: AccountRow, at: str) -> list[Past]:
    """Rebuild the repositories that an owner had at a moment, without refs; raises NotFound if none is known.

    Those count that the caller may see, then and today. What was transferred since went by the owner's name.
    """
    found = fetch(
        connection,
        """SELECT id FROM repositories WHERE owner_id = :id UNION
            SELECT repository_id FROM changes WHERE kind = 'transferred'
                AND old COLLATE NOCASE >= :name || '/' AND old COLLATE NOCASE < :name || '0'""",
        {"id": owner.id, "name": owner.username},
    )
    all_found = list(_pasts(connection, caller, [row[0] for row in found], at, with_refs=False))
    pasts = [one for one in all_found if isinstance(one, Past)]
    if all_found and not pasts:
        raise NotFound(f"the mirror knows nothing of {owner.username} at {at[:19]}Z")
    names = {past.namespace for past in pasts if past.columns["owner_id"] == owner.id}
    names.add((owner.username or "").lower())
    return [
        past
        for past in pasts
        if past.columns["owner_id"] == owner.id
        or (past.columns["owner_id"] is None and past.namespace in names)
    ]


def _pasts(
    connection: sqlite3.Connection, caller: Caller, ids: list[int], at: str, *, with_refs: bool
) -> Iterator[Past | NotFound]:
    """Rebuild the repositories of some rows that a caller may see; yield an error where nothing is known."""
    must_have_history(connection)
    values = {"ids_wanted": json.dumps(ids), **caller.values}
    rows = fetch_dicts(
        connection,
        f"""SELECT r.*, {is_own("r")} AS is_own FROM json_each(:ids_wanted) w
            CROSS JOIN repositories r ON r.id = w.value WHERE {visible(caller, "r")}""",
        values,
    )
    lines = defaultdict[int, list[_Line]](list)
    of_row = "" if with_refs else "AND kind NOT GLOB 'branch_*' AND kind NOT GLOB 'tag_*'"
    for row_id, *line in fetch(
        connection,
        f"""SELECT repository_id, {", ".join(_Line._fields)} FROM changes
            WHERE repository_id IN (SELECT value FROM json_each(:ids_wanted)) {of_row} ORDER BY id""",
        values,
    ):
        lines[row_id].append(_Line(*line))
    compacted = compacted_before(connection) or ""
    for row in rows:
        hidden = 0 if caller.sees_all | row.pop("is_own") else row["public_from"]
        since = _known_since(connection, row, hidden)
        if since is None or at < since:
            told = f"; it is known since {since[:19]}Z" if since else ""
            yield NotFound(f"the mirror knows nothing of {row['full_name']} at {at[:19]}Z{told}")
            continue
        shown = [line for line in lines[row["id"]] if line.id > hidden]
        rebuilt = _Rebuilt(row, since, shown, at)
        yield rebuilt.past(_refs_of(connection, row["id"]) if with_refs else [], to_the_day=at < compacted)


def _refs_of(connection: sqlite3.Connection, row_id: int) -> list[RefRow]:
    return fetch_as(RefRow, connection, select_refs(*KINDS), {"repository": row_id})


def must_have_history(connection: sqlite3.Connection) -> None:
    """Raise NotFound for a published file: former names are left out there, so its past would be wrong."""
    if snapshot_moment(connection) is not None:
        raise NotFound("a published file has no history; ask the mirror that it was made from")


def _known_since(connection: sqlite3.Connection, row: dict[str, Any], hidden: int) -> str | None:
    """Return the time from which on a repository's past may be shown; None if none of it may be.

    Of one that was private that is the last change which stays hidden (`public_from`), and never before it
    was made public.
    """
    if not hidden:
        return str(row["first_seen_at"])
    if hidden >= CLOSED:
        return None
    moments: list[tuple[str | None]] = fetch(
        connection,
        """SELECT max(at) FROM changes WHERE repository_id = :id AND kind = 'made_public' UNION ALL
           SELECT at FROM (SELECT at FROM changes WHERE id <= :hidden ORDER BY id DESC LIMIT 1)""",
        {"id": row["id"], "hidden": hidden},
    )
    return max([str(row["first_seen_at"]), *(moment for (moment,) in moments if moment)])


class _Rebuilt:
    """Undoes changes, from the row of today back to a moment; `lines` are all that the caller may see."""

    def __init__(self, row: dict[str, Any], since: str, lines: list[_Line], at: str) -> None:
        self._row, self._since, self._lines, self._at = row, since, lines, at
        # By number: of two processes that write, one may note its change with an earlier moment, but later.
        self._reached = max((line.id for line in lines if line.at <= at), default=0)
        self._of_ref = defaultdict[tuple[str, str], list[_Line]](list)
        for line in lines:
            if line.kind in _OF_REFS:
                self._of_ref[_OF_REFS[line.kind], str(line.ref)].append(line)

    def past(self, refs_of_today: list[RefRow], *, to_the_day: bool) -> Past:
        """Return the repository as it was then."""
        row, since, at = dict(self._row), self._since, self._at
        looks = _around((since, row["last_seen_at"], *_looks_of(self._of_row(), since)), at)
        ref_looks = self._looks_at_refs(at)
        refs = self._refs(refs_of_today, at) if ref_looks.before else []
        self._undo_row()
        is_current = at >= row["last_seen_at"]
        if not is_current:
            self._row |= dict.fromkeys(NOT_RECORDED)
        self._row |= {
            "last_seen_at": looks.before,
            "refs_synced_at": ref_looks.before,
            "refs_stale": 0,
            "public_from": 0,
        }
        return Past(
            at=at,
            columns=self._row,
            refs=[self._with_looks(ref, ref_looks, at) for ref in refs],
            looks=looks,
            ref_looks=ref_looks,
            is_current=is_current,
            since=since,
            to_the_day=to_the_day,
        )

    def _of_row(self) -> Iterator[_Line]:
        return (line for line in self._lines if line.kind not in _OF_REFS)

    def _undo_row(self) -> None:
        for line in reversed(self._lines):
            if line.id > self._reached and line.kind not in _OF_REFS:
                self._row |= self._before(line)

    def _before(self, line: _Line) -> dict[str, Any]:
        """Return the columns that a change of the row replaced, with their former values."""
        former = dict[str, Any]()
        match line.kind:
            case "renamed":
                former = _named(line.old)
            case "transferred":
                former = {**_named(line.old), "owner_id": None}
            case "made_private" | "made_public":
                former = {"is_private": int(line.kind == "made_public")}
            case "deleted":
                former = {"deleted_at": None, "gone_reason": None}
            case "restored":
                earlier = [one.at for one in self._lines if one.id < line.id and one.kind == "deleted"]
                went = max([self._since, *(earlier[-1:] or [line.previous_look or ""])])
                former = {"deleted_at": went, "gone_reason": line.old}
            case "updated":
                told = json.loads(line.old or "{}")
                former = {
                    name: int(value) if isinstance(value, bool) else value
                    for name, value in told.items()
                    if name in self._row
                }
        return former

    def _looks_at_refs(self, at: str) -> Looks:
        """Return the looks at all refs, by listings; a webhook covers only the refs that it names."""
        listed = [line for line in self._lines if line.kind in _OF_REFS and line.run_id is not None]
        told = [line.previous_look for line in self._lines if line.kind in _OF_REFS]
        first, last = self._row["refs_known_since"], self._row["refs_synced_at"]
        if last is None:
            return Looks(None, None)
        # Rows read while it was private are known from the moment at which the past begins.
        moments = [max(moment, self._since) for moment in (first, last, *told) if moment]
        return _around([*moments, *(line.at for line in listed)], at)

    def _refs(self, rows: list[RefRow], at: str) -> list[RefRow]:
        """Return the refs of the moment, by kind and name; `rows` are those of today."""
        commits = {row.target_hash: {name: getattr(row, name) for name in _OF_COMMITS} for row in rows}
        refs = {(row.kind, row.name): row for row in rows}
        for (kind, name), lines in self._of_ref.items():
            undone = next((line for line in lines if line.id > self._reached), None)
            if undone is not None:
                refs.pop((kind, name), None)
                if undone.old is not None:  # a commit of another ref is shown with that ref's details
                    refs[kind, name] = RefRow(kind, name, undone.old, **commits.get(undone.old, {}))
        if at < (self._row["refs_synced_at"] or ""):
            refs.pop(("tag", PSEUDO_TAG), None)
        return [refs[key] for key in sorted(refs)]

    def _with_looks(self, ref: RefRow, around: Looks, at: str) -> PastRef:
        mine = self._of_ref.get((ref.kind, ref.name), [])
        looks = _around((around.before, around.after, *_looks_of(mine, self._since)), at)
        changed = next((line for line in mine if line.id > self._reached), None)
        is_other = changed is not None and looks.after is not None and changed.at <= looks.after
        return PastRef(ref, looks, changed.new if changed is not None and is_other else ref.target_hash)


def _named(full_name: str | None) -> dict[str, Any]:
    name = full_name or ""
    return {"full_name": name, "slug": name.partition("/")[2]}


def _looks_of(lines: Iterable[_Line], since: str) -> Iterator[str]:
    for line in lines:
        yield line.at
        if line.previous_look and line.previous_look >= since:
            yield line.previous_look


def _around(moments: Iterable[str | None], at: str) -> Looks:
    known = [moment for moment in moments if moment]
    return Looks(
        max((moment for moment in known if moment <= at), default=None),
        min((moment for moment in known if moment > at), default=None),
    )


def past_named(connection: sqlite3.Connection, caller: Caller, full_name: str, at: str) -> Past:
    """Rebuild the repository that had a name at a moment, else the one that has it today.

    A repository that lived then comes before a tombstone. Raises NotFound where nothing is known.
    """
    must_have_history(connection)
    found, why = list[Past](), f"the mirror holds no repository {full_name}"
    for row_id in _ids_named(connection, caller, full_name):
        try:
            found.append(past_of(connection, caller, row_id, at))
        except NotFound as error:
            why = str(error)
    if not found:
        raise NotFound(why)
    wanted = full_name.lower()
    return min(found, key=lambda past: (past.full_name.lower() != wanted, bool(past.columns["deleted_at"])))


def _ids_named(connection: sqlite3.Connection, caller: Caller, full_name: str) -> list[int]:
    """List the repositories that have a name or had it, those that live first."""
    seen = "1" if caller.sees_all else f"(c.id > r.public_from OR {is_own('r')})"
    found = fetch(
        connection,
        f"""SELECT r.id FROM repositories r WHERE {visible(caller, "r")} AND (
                r.full_name = :name COLLATE NOCASE OR r.id IN (
                    SELECT c.repository_id FROM changes c WHERE c.old = :name COLLATE NOCASE
                        AND c.kind IN ('renamed', 'transferred') AND {seen}))
            ORDER BY r.deleted_at IS NOT NULL, r.deleted_at DESC, r.id LIMIT 100""",
        {"name": full_name, **caller.values},
    )
    return [row[0] for row in found]
