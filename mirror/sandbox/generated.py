"""Repositories as a function of (seed, number): nothing is kept, any one is known without the others."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import gcd

from .draws import Draw, Uuids, mix
from .model import Era, Repository, Workspace, micros
from .names import DESCRIPTIONS, LANGUAGES, WEBSITES, Vocabulary, titled

SECOND = 1_000_000
# All generated rows are older than this, and all edits younger.
END = micros(datetime(2025, 11, 30, tzinfo=UTC))


class Generator:
    """The generated repositories of all workspaces."""

    def __init__(self, seed: int, uuids: Uuids) -> None:
        self._seed = seed
        self._uuids = uuids
        self._vocabulary = Vocabulary()

    def created(self, workspace: Workspace, number: int) -> int:
        """Give the time of creation; it grows with the number inside a workspace."""
        step = (END - workspace.created) // (workspace.count + 2)
        draw = mix(self._seed ^ number << 8)
        created = workspace.created + (number - workspace.first + 1) * step + draw % (step // 2)
        return created - created % SECOND if draw >> 60 == 0 else created

    def updated(self, workspace: Workspace, number: int) -> int:
        """Give the time of the last change; a sixth was never touched again."""
        created = self.created(workspace, number)
        draw = mix(self._seed ^ number << 8 ^ 1)
        if draw % 6 == 0:
            return created
        return created + ((END - created) * ((draw >> 32) & 0xFFFFF) >> 20)

    def is_private(self, number: int) -> bool:
        """Tell whether only members see it: one in seven."""
        return mix(self._seed ^ number << 8 ^ 2) % 7 == 0

    def number(self, workspace: Workspace, slug: str) -> int | None:
        """Find a generated repository by its slug."""
        rank = self._vocabulary.rank(slug)
        return None if rank is None else self._of_rank(workspace, rank)

    def repository(self, workspace: Workspace, workspaces: Sequence[Workspace], number: int) -> Repository:
        """Make the repository with this number, which is one of the workspace's."""
        draw = Draw(self._seed, 6, number)
        rank = self._rank(workspace, number)
        slug = self._vocabulary.slug(rank)
        created = self.created(workspace, number)
        is_hg = draw.one_in(5)
        is_empty = draw.one_in(14)
        size = 0 if is_empty else 2_000 + draw.few(900_000_000)
        shape = "full" if draw.below(40) > 1 else draw.pick(("absent", "empty"))
        return Repository(
            number=number,
            workspace=workspace,
            slug=slug,
            name=titled(slug, draw),
            uuid=self._uuids.of(number),
            scm="hg" if is_hg else "git",
            created=created,
            updated=self.updated(workspace, number),
            is_private=self.is_private(number),
            description=draw.early(DESCRIPTIONS),
            website=None if draw.one_in(5) else draw.pick(WEBSITES),
            language=draw.pick(LANGUAGES),
            size=size,
            main_branch=None if is_empty else "default" if is_hg else draw.pick(("master", "master", "main")),
            main_branch_shape=shape,
            fork_policy=draw.early(("allow_forks", "no_public_forks", "no_forks")),
            has_issues=draw.one_in(4),
            has_wiki=draw.one_in(4),
            parent=self._parent(workspace, workspaces, number),
            followers=draw.few(3_000) - 1,
            era=draw.early((Era.NEW, Era.MIDDLE, Era.OLD)),
            project=draw.early(("PROJ", "OS", "WEB", "INFRA")),
        )

    def forks(self, workspace: Workspace, workspaces: Sequence[Workspace], number: int) -> list[int]:
        """Find the generated forks of a generated repository."""
        rank = self._rank(workspace, number)
        later = workspaces[workspace.number + 1 : workspace.number + 3]
        found = ((other, self._of_rank(other, rank)) for other in later if other.count)
        return [
            fork
            for other, fork in found
            if fork is not None and self._parent(other, workspaces, fork) == number
        ]

    def _parent(self, workspace: Workspace, workspaces: Sequence[Workspace], number: int) -> int | None:
        """Find what it was forked from: often the same name of one of the two workspaces before."""
        if mix(self._seed ^ number << 8 ^ 3) % 2:
            return None
        rank = self._rank(workspace, number)
        for other in workspaces[max(0, workspace.number - 2) : workspace.number]:
            if other.count and (parent := self._of_rank(other, rank)) is not None:
                return parent
        return None

    def _rank(self, workspace: Workspace, number: int) -> int:
        """Spread the positions of a workspace over the twice as many most popular names."""
        factor, shift, modulus = self._spread(workspace)
        return ((number - workspace.first) * factor + shift) % modulus

    def _of_rank(self, workspace: Workspace, rank: int) -> int | None:
        factor, shift, modulus = self._spread(workspace)
        if rank >= modulus:
            return None
        position = (rank - shift) * pow(factor, -1, modulus) % modulus
        return workspace.first + position if position < workspace.count else None

    def _spread(self, workspace: Workspace) -> tuple[int, int, int]:
        modulus = max(2, 2 * workspace.count)
        draw = mix(self._seed ^ workspace.number << 40)
        factor = (modulus * 618 // 1000 + draw % 5) | 1
        while gcd(factor, modulus) != 1:
            factor += 2
        return factor, draw % modulus, modulus


def zipf_counts(total: int, parts: int) -> list[int]:
    """Divide a total by Zipf's law: the second gets half of the first, the third a third."""
    if parts == 0:
        return []
    whole = sum(1 / (rank + 1) for rank in range(parts))
    counts = [int(total / (rank + 1) / whole) for rank in range(parts)]
    for rank in range(total - sum(counts)):
        counts[-1 - rank % parts] += 1
    return counts
