"""Holding the mirror against its upstream: repository by repository, one request each and one for its refs.

A row that differs while the upstream says it has not been updated since is *wrong*; one that was updated
since the mirror last looked is merely *old*, as every mirror's rows are between two syncs.
"""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

import msgspec

from mirror.errors import MirrorError, UpstreamRefused
from mirror.model import Ref, Repository, RepositoryKey
from mirror.report import Summary
from mirror.store.publicity import reopen
from mirror.store.refs import TABLES, save_refs
from mirror.store.repositories import SAID
from mirror.store.runs import Failure
from mirror.sync.run import Run
from mirror.sync.steps import Step, work_off

STREAM = "verify"
LONGEST = 200


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One disagreement; `mended` says that the upstream's answer has taken the row's place."""

    repository: str
    verdict: Literal["wrong", "old", "missing upstream"]
    what: str
    mended: bool = False


def verify_upstream(
    run: Run, *, sample: int | None, repair: bool, random: Random
) -> tuple[Summary, list[Finding]]:
    """Compare `sample` repositories picked at random, or all of them, with what the upstream says now.

    Comparing all keeps its place: an interrupted one goes on where it stopped.
    """
    findings = list[Finding]()
    run.kind = "verify"
    with run.recorded() as summary:
        rows = _chosen(run, sample, random)
        run.report.phase("comparing repositories", len(rows))
        steps = (VerifyStep(run, row, findings, repair=repair, keep_place=sample is None) for row in rows)
        work_off(steps, threads=run.config.concurrency, stop=run.stop)
        run.drop_cursor(STREAM)
    return summary, findings


def _chosen(run: Run, sample: int | None, random: Random) -> list[int]:
    """Return the ids of the rows to compare, in order."""
    start = int(run.cursor(STREAM) or 0) if sample is None else 0
    ids = [
        row[0]
        for row in run.store.rows(
            "SELECT id FROM repositories WHERE upstream_id = ? AND deleted_at IS NULL AND id > ? ORDER BY id",
            (run.upstream_id, start),
        )
    ]
    return ids if sample is None or sample >= len(ids) else sorted(random.sample(ids, sample))


class Answer(msgspec.Struct, frozen=True):
    """What the upstream says of one repository since a moment; `refs` None where they are not mirrored."""

    repository: Repository
    refs: tuple[Ref, ...] | None
    since: str


class VerifyStep(Step):
    """Ask for one repository and all of its refs, and compare."""

    def __init__(
        self, run: Run, row_id: int, findings: list[Finding], *, repair: bool, keep_place: bool
    ) -> None:
        self.run, self.row_id, self.findings = run, row_id, findings
        self.repair, self.keep_place = repair, keep_place
        uuid, self.full_name, scm, self.seen_at, self.synced_at = run.store.row(
            "SELECT uuid, full_name, scm, last_seen_at, refs_synced_at FROM repositories WHERE id = ?",
            (row_id,),
        )
        self.key = RepositoryKey(uuid=uuid, full_name=self.full_name, scm=scm)

    def ask(self) -> Answer:
        """Ask for the repository, then for its refs."""
        since = self.run.now_text()
        repository = self.run.upstream.fetch_repository(self.key)
        if not self.run.with_refs:
            return Answer(repository, None, since)
        refs, place = list[Ref](), None
        while True:
            page = self.run.upstream.fetch_refs(self.key, place)
            refs += page.rows
            if page.place is None or page.place == place:
                return Answer(repository, tuple(refs), since)
            place = page.place

    def save(self, answer: Answer) -> Sequence[Step]:
        """Compare, tell, and with `repair` let the answer take the row's place."""
        run = self.run
        old = (answer.repository.updated_at or "") > str(self._row["updated_at"] or "")
        verdict: Literal["wrong", "old"] = "old" if old else "wrong"
        differences = [*self._row_differences(answer.repository), *self._ref_differences(answer.refs)]
        with run.store.transaction() as connection:
            if differences and self.repair:
                run.save_page([answer.repository], first_listing=False)
                if answer.refs is not None:
                    saved = save_refs(
                        connection,
                        self.row_id,
                        answer.refs,
                        first_page=True,
                        last_page=True,
                        seen_at=run.now_text(),
                    )
                    run.store.save_changes(saved.changes, run_id=run.id, at=run.now_text())
                    reopen(connection, self.row_id, listed_since=answer.since)
            self._done()
        self.findings.extend(
            Finding(repository=self.full_name, verdict=verdict, what=what, mended=self.repair)
            for what in differences
        )
        run.report.step()
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        """A repository that is not there is a finding; only a sweep may call it gone."""
        status = self.run.isolate(error)
        if isinstance(error, UpstreamRefused) and status in (403, 404):
            self.findings.append(
                Finding(repository=self.full_name, verdict="missing upstream", what=str(error))
            )
        else:
            self.run.fail(Failure("repository", self.key.uuid, str(error), self.row_id, status=status))
        self._done()
        self.run.report.step()
        return []

    def _done(self) -> None:
        if self.keep_place:
            self.run.save_cursor(STREAM, str(self.row_id))

    @property
    def _row(self) -> dict[str, object]:
        row = self.run.store.row(f"SELECT {', '.join(SAID)} FROM repositories WHERE id = ?", (self.row_id,))
        return dict(zip(SAID, row, strict=True))

    def _row_differences(self, answer: Repository) -> Iterator[str]:
        """Name the columns that differ; counts that this answer does not carry are left alone."""
        for column, mine in self._row.items():
            theirs = getattr(answer, column)
            if theirs is None and column in ("followers_count", "forks_count"):
                continue
            if mine != theirs and not (isinstance(theirs, bool) and bool(mine) == theirs):
                yield f"{column}: mirror {_short(mine)}, upstream {_short(theirs)}"

    def _ref_differences(self, refs: tuple[Ref, ...] | None) -> Iterator[str]:
        """Name the refs that are missing, superfluous or point elsewhere."""
        for kind, table in TABLES.items() if refs is not None and self.synced_at else ():
            mine = dict(
                self.run.store.rows(
                    f"SELECT name, target_hash FROM {table} WHERE repository_id = ?", (self.row_id,)
                )
            )
            theirs = {ref.name: ref.target_hash for ref in refs or () if ref.kind == kind}
            for name in sorted(mine.keys() | theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    old, new = (side.get(name, "none")[:12] for side in (mine, theirs))
                    yield f"{kind} {name}: mirror {old}, upstream {new}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
