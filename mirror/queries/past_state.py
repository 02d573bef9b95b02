"""A repository at a moment, and how it is rebuilt: its row of today, with what changed since undone.

`changes` says what each change replaced, and `measures` what moved with every push, so undoing them leads
back to any moment since the mirror first looked. What is not recorded is None. Between two looks the upstream
may have changed already, so the looks around the moment are given beside the values.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from mirror.queries.refs import KINDS
from mirror.queries.rows import RefRow
from mirror.store.changes import MEASURED
from mirror.store.schema import PSEUDO_TAG

NOT_RECORDED = ("forks_count", "project_name", "project_uuid", "avatar_url", "clone_https", "clone_ssh")
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
    - `not_recorded`: the columns that are None because their past is not recorded.
    - `since`: the moment from which on its past is known.
    - `to_the_day`: older history was compacted, so that only the first and last state of a day are kept.
    """

    at: str
    columns: dict[str, Any]
    refs: list[PastRef]
    looks: Looks
    ref_looks: Looks
    not_recorded: tuple[str, ...]
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

    def refs_by_name(self) -> dict[tuple[str, str], PastRef]:
        """Map kind and name to the branches and tags."""
        return {(ref.row.kind, ref.row.name): ref for ref in self.refs}

    def bounds(self) -> dict[str, Any]:
        """Return how much is known, for JSON."""
        return {
            "at": self.at,
            "known_since": self.since,
            "looks": {
                "repository": msgspec.structs.asdict(self.looks),
                "refs": msgspec.structs.asdict(self.ref_looks),
            },
            "exact_to": "day" if self.to_the_day else "look",
            "not_recorded": self.not_recorded,
        }


class Line(NamedTuple):
    """A change of the repository, as far as the caller may see it."""

    id: int
    at: str
    kind: str
    ref: str | None
    old: str | None
    new: str | None
    old_date: str | None
    run_id: int | None
    previous_look: str | None


class Measures(NamedTuple):
    """What moves with every push: the looks around a moment that saw it move, and what it was in between.

    `values` is None where there is no later look, so that what the row has today was true then.
    """

    looks: Looks
    values: dict[str, Any] | None


class Rebuilt:
    """Undoes changes, from the row of today back to a moment.

    :param row: the row of today.
    :param since: the moment from which on the past may be shown.
    :param lines: all changes that the caller may see.
    :param measures: what moved with every push; None where that is not recorded of the moment.
    """

    def __init__(
        self, row: dict[str, Any], since: str, lines: list[Line], measures: Measures | None, at: str
    ) -> None:
        self._row, self._since, self._lines, self._at = row, since, lines, at
        self._measures = measures
        # By number: of two processes that write, one may note its change with an earlier moment, but later.
        self._reached = max((line.id for line in lines if line.at <= at), default=0)
        self._of_ref = defaultdict[tuple[str, str], list[Line]](list)
        for line in lines:
            if line.kind in _OF_REFS:
                self._of_ref[_OF_REFS[line.kind], str(line.ref)].append(line)

    def past(self, refs_of_today: list[RefRow], *, to_the_day: bool) -> Past:
        """Return the repository as it was then."""
        looks, ref_looks = self._looks_at_row(), self._looks_at_refs()
        refs = self._refs(refs_of_today) if ref_looks.before else []
        not_recorded = self._not_recorded()
        self._undo_row()
        self._row |= dict.fromkeys(not_recorded) | {
            "last_seen_at": looks.before,
            "refs_synced_at": ref_looks.before,
            "refs_stale": 0,
            "public_from": 0,
        }
        return Past(
            at=self._at,
            columns=self._row,
            refs=[self._with_looks(ref, ref_looks) for ref in refs],
            looks=looks,
            ref_looks=ref_looks,
            not_recorded=not_recorded,
            since=self._since,
            to_the_day=to_the_day,
        )

    def _looks_at_row(self) -> Looks:
        """Return the looks at the row."""
        moments = [self._since, self._row["last_seen_at"]]
        moments += _looks_of((line for line in self._lines if line.kind not in _OF_REFS), self._since)
        if self._measures is not None:
            seen = (self._measures.looks.before, self._measures.looks.after)
            moments += [look for look in seen if look and look >= self._since]
        return _looks_around(moments, self._at)

    def _not_recorded(self) -> tuple[str, ...]:
        if self._at >= self._row["last_seen_at"]:
            return ()
        return NOT_RECORDED if self._measures is not None else (*MEASURED, *NOT_RECORDED)

    def _undo_row(self) -> None:
        if self._measures is not None and self._measures.values is not None:
            self._row |= self._measures.values
        for line in reversed(self._lines):
            if line.id > self._reached and line.kind not in _OF_REFS:
                self._row |= self._before(line)

    def _before(self, line: Line) -> dict[str, Any]:
        """Return the columns that a change of the row replaced, with their former values."""
        former = dict[str, Any]()
        match line.kind:
            case "renamed":
                former = _name_columns(line.old)
            case "transferred":
                former = {**_name_columns(line.old), "owner_id": None}
            case "made_private" | "made_public":
                former = {"is_private": int(line.kind == "made_public")}
            case "deleted":
                former = {"deleted_at": None, "gone_reason": None}
            case "restored":
                earlier = [one.at for one in self._lines if one.id < line.id and one.kind == "deleted"]
                # Without a recorded deletion, it was gone from the look before it came back.
                went = max([self._since, *(earlier[-1:] or [line.previous_look or ""])])
                former = {"deleted_at": went, "gone_reason": line.old}
            case "updated":
                replaced = json.loads(line.old or "{}")
                former = {
                    name: int(value) if isinstance(value, bool) else value
                    for name, value in replaced.items()
                    if name in self._row
                }
        return former

    def _looks_at_refs(self) -> Looks:
        """Return the looks at all refs, by listings; a webhook covers only the refs that it names."""
        lines = [line for line in self._lines if line.kind in _OF_REFS]
        first, last = self._row["refs_known_since"], self._row["refs_synced_at"]
        if last is None:
            return Looks(None, None)
        # Rows read while it was private are known from the moment at which the past begins.
        recorded = [first, last, *(line.previous_look for line in lines)]
        moments = [max(moment, self._since) for moment in recorded if moment]
        return _looks_around([*moments, *(line.at for line in lines if line.run_id is not None)], self._at)

    def _refs(self, rows: list[RefRow]) -> list[RefRow]:
        """Return the refs of the moment, by kind and name; `rows` are those of today."""
        commits = {row.target_hash: {name: getattr(row, name) for name in _OF_COMMITS} for row in rows}
        refs = {(row.kind, row.name): row for row in rows}
        for (kind, name), lines in self._of_ref.items():
            undone = next((line for line in lines if line.id > self._reached), None)
            # The first change after the moment tells what was there at it.
            if undone is not None:
                refs.pop((kind, name), None)
                if undone.old is not None:  # a commit of another ref is shown with that ref's details
                    commit = commits.get(undone.old, {"target_date": undone.old_date})
                    refs[kind, name] = RefRow(kind, name, undone.old, **commit)
        if self._at < (self._row["refs_synced_at"] or ""):  # moves of the pseudo tag are not recorded
            refs.pop(("tag", PSEUDO_TAG), None)
        return [refs[key] for key in sorted(refs)]

    def _with_looks(self, ref: RefRow, around: Looks) -> PastRef:
        mine = self._of_ref.get((ref.kind, ref.name), [])
        looks = _looks_around((around.before, around.after, *_looks_of(mine, self._since)), self._at)
        changed = next((line for line in mine if line.id > self._reached), None)
        is_other = changed is not None and looks.after is not None and changed.at <= looks.after
        return PastRef(ref, looks, changed.new if changed is not None and is_other else ref.target_hash)


def _name_columns(full_name: str | None) -> dict[str, Any]:
    name = full_name or ""
    return {"full_name": name, "slug": name.partition("/")[2]}


def _looks_of(lines: Iterable[Line], since: str) -> Iterator[str]:
    for line in lines:
        yield line.at
        if line.previous_look and line.previous_look >= since:
            yield line.previous_look


def _looks_around(moments: Iterable[str | None], at: str) -> Looks:
    known = [moment for moment in moments if moment]
    return Looks(
        max((moment for moment in known if moment <= at), default=None),
        min((moment for moment in known if moment > at), default=None),
    )
