"""Rows that earlier versions saved without a uuid: merged where it is known, else asked for."""

from collections.abc import Iterator, Sequence

from mirror.model import NAMED, Repository, RepositoryKey
from mirror.store.identities import merge_second_rows, without_uuid
from mirror.sync.engine import Step
from mirror.sync.missing import AbsenceStep
from mirror.sync.run import Run

WITH_UUIDS = ("cloud", "sandbox")
"""Kinds of upstreams whose repositories have uuids."""


def merge_duplicates(run: Run) -> list[str]:
    """Merge second rows of one repository or owner into the first; return the names of repositories."""
    if run.config.kind not in WITH_UUIDS:
        return []
    with run.store.transaction() as connection:
        merged = merge_second_rows(connection, run.upstream_id)
    for name in merged:
        run.note(f"{name} had a second row, which is merged into the one with its uuid")
    return merged


def uuid_steps(run: Run) -> Iterator[Step]:
    """Yield a step for each repository whose uuid is unknown, unless that has failed lately."""
    if run.config.kind not in WITH_UUIDS:
        return
    for row_id, full_name in without_uuid(run.store.connection, run.upstream_id):
        key = RepositoryKey(uuid=f"{NAMED}{full_name.lower()}", full_name=full_name)
        if not run.waits("repository", key.uuid):
            yield UuidStep(run, row_id, key)


class UuidStep(AbsenceStep):
    """Ask for a repository by its name: the answer has its uuid, or says that it is gone."""

    def __init__(self, run: Run, row_id: int, key: RepositoryKey) -> None:
        owners = {state.owner_uuid for _, state in run.states()}
        super().__init__(run, key.workspace, row_id, key, owners)

    def save(self, answer: Repository) -> Sequence[Step]:
        """Write it, and give the row its uuid; raises UpstreamShapeError for an answer without one."""
        steps = super().save(answer)
        merge_duplicates(self.run)
        return steps

    def _expect(self, answer: Repository) -> None:
        """Expect nothing: listings may have named it all the time."""
