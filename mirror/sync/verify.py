"""Compare the mirror with its upstream, repository by repository: one request each, and one for its refs.

A row that differs, although the upstream has not updated it since, is *wrong*. One that was updated since the
mirror last asked is merely *old*, as any row may be between two syncs.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import Literal

import msgspec

from mirror.errors import MirrorError, UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, Repository, RepositoryKey
from mirror.readable import repositories_text
from mirror.report import Summary
from mirror.store.changes import SENT
from mirror.store.repositories import KEPT_IF_MISSING
from mirror.store.runs import ACCEPTABLE, Failure
from mirror.store.schema import REF_TABLES
from mirror.sync.engine import Step, run_steps
from mirror.sync.hints import refs_anew
from mirror.sync.missing import make_tombstone, merge_duplicates
from mirror.sync.pages import save_row
from mirror.sync.preflight import correct_moments
from mirror.sync.progress import COMPARED
from mirror.sync.run import Run
from mirror.sync.run_record import record_progress, recorded
from mirror.upstream.protocol import Page

LONGEST = 200


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference; `mended` says that the upstream's answer has replaced the row.

    `verdict` is accepted where the upstream refuses a repository of `accept_missing`. `refs_of` is the row
    whose refs are listed again to mend it.
    """

    repository: str
    verdict: Literal["wrong", "old", "missing upstream", "accepted"]
    what: str
    mended: bool = False
    refs_of: int | None = None

    @property
    def is_fault(self) -> bool:
        """Whether the operator should act on it."""
        return self.verdict in ("wrong", "missing upstream")


def verify_upstream(
    run: Run, *, sample: int | None, repair: bool, random: Random
) -> tuple[Summary, list[Difference]]:
    """Compare `sample` repositories picked at random, or (None) all of them, with their upstream.

    A comparison of all that is interrupted is resumed by the next one. With `repair`, the upstream's answer
    replaces what differs; such a run skips nothing that was compared without `repair`.
    """
    findings = list[Difference]()
    run.kind = "verify"
    with recorded(run) as summary:
        correct_moments(run, thoroughly=repair)
        if repair:
            findings += [_second_row(name) for name in merge_duplicates(run)]
        rows = _sampled(run, sample, random) if sample is not None else _all_left(run, repair=repair)
        run.progress.begin(COMPARED, "comparing repositories", total=len(rows))
        steps = (VerifyStep(run, row, findings, repair=repair, keep_place=sample is None) for row in rows)
        run_steps(steps, threads=run.config.concurrency, stop=run.stop, tick=partial(record_progress, run))
        if sample is None:
            with run.cursors() as cursors:
                cursors.verify(repair=repair).drop()
    return summary, [_judged(run, finding) for finding in findings]


def _second_row(name: str) -> Difference:
    return Difference(repository=name, verdict="wrong", what="it had a second row without uuid", mended=True)


def _judged(run: Run, finding: Difference) -> Difference:
    """Complete a finding about refs: it is mended if they were listed to the end."""
    if finding.refs_of is None:
        return finding
    stale = run.store.value("SELECT refs_stale FROM repositories WHERE id = ?", (finding.refs_of,))
    return msgspec.structs.replace(finding, mended=not stale)


def _sampled(run: Run, sample: int, random: Random) -> list[int]:
    """Return the ids of so many rows, picked at random, in order."""
    ids = _alive(run)
    return ids if sample >= len(ids) else sorted(random.sample(ids, sample))


def _all_left(run: Run, *, repair: bool) -> list[int]:
    """Return the ids of all rows that an interrupted run of the same kind has not compared, in order."""
    with run.cursors() as cursors:
        start = cursors.verify(repair=repair).read() or 0
    ids = _alive(run)
    left = [row_id for row_id in ids if row_id > start]
    if start:
        compared = repositories_text(len(ids) - len(left))
        run.note(f"goes on after {compared}, which a run that was interrupted has compared")
    return left


def _alive(run: Run) -> list[int]:
    sql = "SELECT id FROM repositories WHERE upstream_id = ? AND deleted_at IS NULL ORDER BY id"
    return [row_id for (row_id,) in run.store.rows(sql, (run.upstream_id,))]


class UpstreamCopy(msgspec.Struct, frozen=True):
    """The upstream's data of one repository; `refs` is None if they are not mirrored.

    `whole` says that a ref that is not among them does not exist: each row was understood, the listing did
    not change while it was read, and it is not empty while there is a main branch.
    """

    repository: Repository
    refs: tuple[Ref, ...] | None = None
    whole: bool = False


class VerifyStep(Step):
    """Request one repository and all of its refs, and compare."""

    def __init__(
        self, run: Run, row_id: int, findings: list[Difference], *, repair: bool, keep_place: bool
    ) -> None:
        self.run, self.row_id, self.findings = run, row_id, findings
        self.repair, self.keep_place = repair, keep_place
        uuid, self.full_name, scm, self.synced_at = run.store.row(
            "SELECT uuid, full_name, scm, refs_synced_at FROM repositories WHERE id = ?",
            (row_id,),
        )
        self.key = RepositoryKey(uuid=uuid, full_name=self.full_name, scm=scm)

    def ask(self) -> UpstreamCopy:
        """Request the repository, then its refs."""
        repository = self.run.upstream.fetch_repository(self.key)
        if not self.run.with_refs:
            return UpstreamCopy(repository)
        pages = list(self._pages_of_refs())
        refs = tuple(ref for page in pages for ref in page.rows)
        sizes = {page.size for page in pages}
        understood = not any(page.bad for page in pages)
        whole = understood and sizes <= {None, len(refs)} and bool(refs or repository.main_branch is None)
        return UpstreamCopy(repository, refs, whole)

    def _pages_of_refs(self) -> Iterator[Page[Ref]]:
        """Request page after page; raises UpstreamShapeError if the links form a loop."""
        place, asked = None, set[str | None]()
        while place not in asked:
            asked.add(place)
            page = self.run.upstream.fetch_refs(self.key, place)
            yield page
            place = page.next
            if place is None:
                return
        raise UpstreamShapeError("the refs listing leads back to a page of its own")

    def save(self, answer: UpstreamCopy) -> Sequence[Step]:
        """Compare, and with `repair` replace the row by the upstream's answer."""
        run = self.run
        old = (answer.repository.updated_at or "") > str(self._row["updated_at"] or "")
        verdict: Literal["wrong", "old"] = "old" if old else "wrong"
        of_row, of_refs = list(self._row_differences(answer.repository)), list(self._ref_differences(answer))
        follows = list[Step]()
        # Refs that differ are listed by the step of every sync, which handles shifting pages and broken rows.
        with run.store.transaction():
            if self.repair and (of_row or of_refs) and self._mend(answer.repository) and of_refs:
                follows.append(refs_anew(run, self.row_id, self.key))
            self._done()
        refs_of = self.row_id if follows else None
        finding = partial(Difference, repository=self.full_name, verdict=verdict, mended=self.repair)
        self.findings += [finding(what=what) for what in of_row]
        self.findings += [finding(what=what, refs_of=refs_of) for what in of_refs]
        run.progress.step()
        return follows

    def _mend(self, answer: Repository) -> bool:
        """Write the row; return whether it stays, with an owner who is mirrored."""
        has_left = self.run.states.has_left(answer)
        save_row(self.run, answer)
        if has_left:
            make_tombstone(self.run, self.row_id, f"transferred to {answer.full_name}")
        return not has_left

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """Report a repository that is not there, and note any other failure."""
        # Only a full listing may call it gone. Other failures concern this run alone.
        status = self.run.failures.isolate(error)
        accepted = {name.lower() for name in self.run.config.accept_missing}
        is_accepted = self.full_name.lower() in accepted and status in ACCEPTABLE
        if is_accepted or (isinstance(error, UpstreamRefused) and status in (401, 403, 404)):
            verdict: Literal["accepted", "missing upstream"] = (
                "accepted" if is_accepted else "missing upstream"
            )
            self.findings.append(Difference(repository=self.full_name, verdict=verdict, what=str(error)))
        else:
            failure = Failure("repository", self.key.uuid, str(error), self.row_id, status=status)
            self.run.failures.found.append(failure)
        self._done()
        self.run.progress.step()
        return []

    def _done(self) -> None:
        if self.keep_place:
            with self.run.cursors() as cursors:
                cursors.verify(repair=self.repair).save(self.row_id, at=self.run.now_text())

    @property
    def _row(self) -> dict[str, object]:
        row = self.run.store.row(f"SELECT {', '.join(SENT)} FROM repositories WHERE id = ?", (self.row_id,))
        return dict(zip(SENT, row, strict=True))

    def _row_differences(self, answer: Repository) -> Iterator[str]:
        """Name the columns that differ, of those that both this answer and listings have."""
        if answer.uuid != self.key.uuid:
            yield f"uuid: mirror {_short(self.key.uuid)}, upstream {_short(answer.uuid)}"
        for column, mine in self._row.items():
            theirs = getattr(answer, column)
            if column in KEPT_IF_MISSING and None in (mine, theirs):
                continue
            if column == "main_branch" and not answer.tells_main_branch:
                continue
            if mine != theirs and not (isinstance(theirs, bool) and bool(mine) == theirs):
                yield f"{column}: mirror {_short(mine)}, upstream {_short(theirs)}"

    def _ref_differences(self, answer: UpstreamCopy) -> Iterator[str]:
        """Name the refs that are missing, point elsewhere or, in a `whole` answer, should not be there."""
        for kind, table in REF_TABLES.items() if self.synced_at else ():
            mine = dict(
                self.run.store.rows(
                    f"SELECT name, target_hash FROM {table} WHERE repository_id = ?", (self.row_id,)
                )
            )
            theirs = {ref.name: ref.target_hash for ref in answer.refs or () if ref.kind == kind}
            for name in sorted(mine.keys() | theirs.keys() if answer.whole else theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    old, new = (side.get(name, "none")[:12] for side in (mine, theirs))
                    yield f"{kind} {name}: mirror {old}, upstream {new}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
