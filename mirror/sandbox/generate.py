"""Generate repositories and refs from a seed, by choices that depend only on keys.

A repository is computed from its number alone, so nothing is stored and a world of a million starts at once.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from math import gcd
from typing import TypeVar

from mirror.sandbox.model import (
    Annotation,
    CommitAuthor,
    Era,
    Person,
    SandboxRef,
    SandboxRepository,
    SandboxWorkspace,
    micros,
)
from mirror.sandbox.vocabulary import (
    BRANCH_KINDS,
    DESCRIPTIONS,
    LANGUAGES,
    MESSAGES,
    STEMS,
    WEBSITES,
    vocabulary,
)

T = TypeVar("T")

_MASK = (1 << 64) - 1
_LOW_BITS = 48
_LOW_MASK = (1 << _LOW_BITS) - 1
# An odd factor has an inverse modulo a power of two, so a uuid can be turned back into its number.
_ODD = 0x5851F42D4C95
_ODD_INVERSE = pow(_ODD, -1, 1 << _LOW_BITS)


def mix(number: int) -> int:
    """Return a 64-bit hash of a number (the finalizer of splitmix64)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _MASK
    return number ^ number >> 31


class Draw:
    """A stream of pseudo-random choices that depends only on its key."""

    __slots__ = ("_state",)

    def __init__(self, *key: int) -> None:
        self._state = 0
        for part in key:
            self._state = mix(self._state ^ part)

    def below(self, limit: int) -> int:
        """Return a number from 0 to limit - 1."""
        self._state = mix(self._state)
        return self._state % limit

    def one_in(self, times: int) -> bool:
        """Return True with a probability of 1/times."""
        return self.below(times) == 0

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, all equally likely."""
        return choices[self.below(len(choices))]

    def pick_skewed(self, choices: Sequence[T]) -> T:
        """Return one of the choices, the first ones far more often, nearly by Zipf's law."""
        return choices[self.skewed(len(choices)) - 1]

    def skewed(self, most: int) -> int:
        """Return a number from 1 to `most` whose logarithm is uniform: mostly small, seldom large."""
        return min(most, int((most + 1) ** (self.below(1 << 24) / (1 << 24))))


def hex_digits(*key: object) -> str:
    """Return 40 hexadecimal digits, like the hash of a commit."""
    return blake2b(repr(key).encode(), digest_size=20).hexdigest()


class Uuids:
    """The uuids of one kind of object. Each can be turned back into its number."""

    def __init__(self, seed: int, kind: int) -> None:
        self._key = mix(mix(seed) ^ kind)

    def of(self, number: int) -> str:
        """Return the uuid of a number, in braces."""
        high = f"{mix(self._key ^ number):016x}{mix(self._key + number):016x}"
        low = (number * _ODD + self._key) & _LOW_MASK
        return f"{{{high[:8]}-{high[8:12]}-4{high[13:16]}-a{high[17:20]}-{low:012x}}}"

    def number(self, uuid: str) -> int | None:
        """Return the number of a uuid, with or without braces; None if it is not one of these."""
        try:
            low = int(uuid.strip("{}")[-12:], 16)
        except ValueError:
            return None
        number = ((low - self._key) * _ODD_INVERSE) & _LOW_MASK
        return number if self.of(number).strip("{}") == uuid.strip("{}").lower() else None


def titled(slug: str, draw: Draw) -> str:
    """Return a name that people might give to a slug, mostly the slug itself."""
    match draw.below(12):
        case 0:
            return slug.replace("-", " ").title()
        case 1:
            return slug.replace("-", " ").capitalize()
        case 2:
            return "".join(word.capitalize() for word in slug.split("-"))
        case _:
            return slug


SECOND = 1_000_000
# All generated dates are before this, and all edits after.
END = micros(datetime(2025, 11, 30, tzinfo=UTC))


class Generator:
    """The generated repositories of all workspaces."""

    def __init__(self, seed: int, uuids: Uuids, workspaces: Sequence[SandboxWorkspace]) -> None:
        self._seed, self._uuids, self._workspaces = seed, uuids, workspaces
        self._vocabulary = vocabulary()

    def created(self, workspace: SandboxWorkspace, number: int) -> int:
        """Return the time of creation; within a workspace it increases with the number."""
        # Not through Draw: the listing of a workspace asks for the dates of all its repositories.
        step = (END - workspace.created) // (workspace.count + 2)
        draw = mix(self._seed ^ number << 8)
        created = workspace.created + (number - workspace.first + 1) * step + draw % (step // 2)
        return created - created % SECOND if draw >> 60 == 0 else created

    def updated(self, workspace: SandboxWorkspace, number: int) -> int:
        """Return the time of the last change; one in six never changed after its creation."""
        created = self.created(workspace, number)
        draw = mix(self._seed ^ number << 8 ^ 1)
        if draw % 6 == 0:
            return created
        return created + ((END - created) * ((draw >> 32) & 0xFFFFF) >> 20)

    def is_private(self, number: int) -> bool:
        """Return whether a repository is private: one in seven."""
        return mix(self._seed ^ number << 8 ^ 2) % 7 == 0

    def number(self, workspace: SandboxWorkspace, slug: str) -> int | None:
        """Return the number of the generated repository with this slug, None if there is none."""
        rank = self._vocabulary.rank(slug)
        return None if rank is None else self._of_rank(workspace, rank)

    def repository(self, workspace: SandboxWorkspace, number: int) -> SandboxRepository:
        """Return the repository with this number, which must be in the workspace's range."""
        draw = Draw(self._seed, 6, number)
        rank = self._rank(workspace, number)
        slug = self._vocabulary.slug(rank)
        created = self.created(workspace, number)
        is_hg = draw.one_in(5)
        is_empty = draw.one_in(14)
        size = 0 if is_empty else 2_000 + draw.skewed(900_000_000)
        shape = "full" if draw.below(40) > 1 else draw.pick(("absent", "empty"))
        return SandboxRepository(
            number=number,
            workspace=workspace,
            slug=slug,
            name=titled(slug, draw),
            uuid=self._uuids.of(number),
            scm="hg" if is_hg else "git",
            created=created,
            updated=self.updated(workspace, number),
            is_private=self.is_private(number),
            description=draw.pick_skewed(DESCRIPTIONS),
            website=None if draw.one_in(5) else draw.pick(WEBSITES),
            language=draw.pick(LANGUAGES),
            size=size,
            main_branch=None if is_empty else "default" if is_hg else draw.pick(("master", "master", "main")),
            main_branch_shape=shape,
            fork_policy=draw.pick_skewed(("allow_forks", "no_public_forks", "no_forks")),
            has_issues=draw.one_in(4),
            has_wiki=draw.one_in(4),
            parent=self._parent(workspace, number),
            followers=draw.skewed(3_000) - 1,
            era=draw.pick_skewed((Era.NEW, Era.MIDDLE, Era.OLD)),
            project=draw.pick_skewed(("PROJ", "OS", "WEB", "INFRA")),
        )

    def forks(self, workspace: SandboxWorkspace, number: int) -> list[int]:
        """Return the numbers of the generated forks of a generated repository."""
        rank = self._rank(workspace, number)
        later = self._workspaces[workspace.number + 1 : workspace.number + 3]
        found = ((other, self._of_rank(other, rank)) for other in later if other.count)
        return [fork for other, fork in found if fork is not None and self._parent(other, fork) == number]

    def _parent(self, workspace: SandboxWorkspace, number: int) -> int | None:
        """Return the parent, often the repository of the same slug in one of the two workspaces before."""
        if mix(self._seed ^ number << 8 ^ 3) % 2:
            return None
        rank = self._rank(workspace, number)
        for other in self._workspaces[max(0, workspace.number - 2) : workspace.number]:
            if other.count and (parent := self._of_rank(other, rank)) is not None:
                return parent
        return None

    def _rank(self, workspace: SandboxWorkspace, number: int) -> int:
        """Return the rank of a repository's slug: below twice the number of repositories, scattered."""
        # A permutation, so that no two repositories of a workspace have the same slug, and it can be undone.
        factor, shift, modulus = self._spread(workspace)
        return ((number - workspace.first) * factor + shift) % modulus

    def _of_rank(self, workspace: SandboxWorkspace, rank: int) -> int | None:
        factor, shift, modulus = self._spread(workspace)
        if rank >= modulus:
            return None
        position = (rank - shift) * pow(factor, -1, modulus) % modulus
        return workspace.first + position if position < workspace.count else None

    def _spread(self, workspace: SandboxWorkspace) -> tuple[int, int, int]:
        modulus = max(2, 2 * workspace.count)
        draw = mix(self._seed ^ workspace.number << 40)
        factor = (modulus * 618 // 1000 + draw % 5) | 1
        while gcd(factor, modulus) != 1:
            factor += 2
        return factor, draw % modulus, modulus


def zipf_counts(total: int, parts: int) -> list[int]:
    """Divide a total into parts by Zipf's law: the second is half of the first, the third a third."""
    if parts == 0:
        return []
    whole = sum(1 / (rank + 1) for rank in range(parts))
    counts = [int(total / (rank + 1) / whole) for rank in range(parts)]
    for rank in range(total - sum(counts)):
        counts[-1 - rank % parts] += 1
    return counts


_GUESTS = (
    "shjohnst",
    "Lars Kanis <lars@example.org>",
    "root <root@localhost>",
    "[:Aureliano Buendía] <ab@example.com>",
    "gitflow <a68zt2nu4xpbg903w8cd6di7rk2px9@bots.example.org>",
)


def author(people: Sequence[Person], draw: Draw) -> CommitAuthor:
    """Return the author of a commit, mostly somebody with an account."""
    person = draw.pick(people)
    known = CommitAuthor(f"{person.display_name} <{person.username}@example.com>", person)
    match draw.below(24):
        case 0 | 1 | 2:
            return CommitAuthor(draw.pick(_GUESTS))
        case 3:
            return CommitAuthor(person.username, person)
        case 4:
            return CommitAuthor(known.raw, person, "app_user")
        case 5:
            return CommitAuthor(known.raw, person, "no_uuid")
        case _:
            return known


def new_ref(
    repository: SandboxRepository, kind: str, name: str, key: int, *, when: int, annotated: bool
) -> SandboxRef:
    """Return a ref that points to a new commit; `key` makes the commits of different pushes different."""
    draw = Draw(repository.number, key, len(name), 7)
    parent = hex_digits(repository.uuid, name, key, "parent")
    parents = ((), (parent,), (parent,), (parent, parent[::-1]))[draw.below(4)]
    ref = SandboxRef(
        name=name,
        kind=kind,
        target=hex_digits(repository.uuid, kind, name, key),
        date=when - when % SECOND,
        author=author(repository.workspace.members, draw),
        message=draw.pick(MESSAGES),
        parents=parents,
    )
    if kind == "branch" and repository.scm == "hg":
        second = hex_digits(repository.uuid, name, key, "head")
        ref.heads = ((ref.target,), (ref.target,), (ref.target, second), ())[draw.below(4)]
    if annotated and repository.scm == "git":
        tagger = author(repository.workspace.members, draw)
        message = f"Release {name}\n"
        ref.annotation = Annotation(tagger, message, ref.date + 30 * SECOND, hex_digits(ref.target, name))
    elif kind == "tag":
        ref.silent = draw.one_in(4)
    return ref


def generated_refs(repository: SandboxRepository, seed: int) -> list[SandboxRef]:
    """Return the branches and tags that a repository has before any edit."""
    if repository.main_branch is None:
        return []
    draw = Draw(seed, 8, repository.number)
    branches = 1 + (draw.skewed(8) - 1 if not draw.one_in(450) else 60 + draw.below(120))
    tags = 0 if draw.one_in(3) else draw.skewed(8) if not draw.one_in(450) else 50 + draw.below(200)
    names = [repository.main_branch, *_branch_names(repository, draw, branches - 1)]
    refs = [_drawn(repository, "branch", name, draw) for name in names]
    if repository.scm == "hg":
        refs[0].heads = (refs[0].target,)
    refs += [_drawn(repository, "tag", name, draw) for name in _tag_names(draw, tags)]
    if tags > 2 and draw.one_in(6) and branches > 2:
        refs.append(_drawn(repository, "tag", names[-1], draw))
    if repository.scm == "hg":
        refs.append(tip(refs[0]))
    return refs


def tip(newest: SandboxRef) -> SandboxRef:
    """Return Mercurial's pseudo tag, which points to the newest commit."""
    return SandboxRef("tip", "tag", newest.target, newest.date, newest.author, newest.message, newest.parents)


def _drawn(repository: SandboxRepository, kind: str, name: str, draw: Draw) -> SandboxRef:
    span = repository.updated - repository.created
    when = repository.created + (span * draw.below(1000) // 1000 if span > 0 else 0)
    return new_ref(repository, kind, name, draw.below(1 << 30), when=when, annotated=draw.below(3) > 0)


def _branch_names(repository: SandboxRepository, draw: Draw, count: int) -> list[str]:
    if count == 0:
        return []
    names = ["develop" if repository.scm == "git" else "stable"]
    for number in range(1, count):
        word = draw.pick(STEMS)
        names.append(
            draw.pick(
                (
                    f"{draw.pick_skewed(BRANCH_KINDS)}/{repository.project}-{number}-{word}",
                    f"{draw.pick_skewed(BRANCH_KINDS)}/{word}-{number}",
                    f"{word}{number}",
                    f"{word}-{1_507_071_611_996 + number}",
                )
            )
        )
    return names


def _tag_names(draw: Draw, count: int) -> list[str]:
    style = draw.pick(("v{0}.{1}.{2}", "{0}.{1}.{2}", "release-{0}.{1}.{2}", "@kit/part@{0}.{1}.{2}"))
    return [style.format(number // 30, number // 10 % 3, number % 10) for number in range(1, count + 1)]
