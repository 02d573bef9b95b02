"""Generate people, workspaces, repositories and refs from a seed.

A repository is computed from its number alone, so nothing is stored and a world of a million starts at once.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import gcd

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
    FIRST_NAMES,
    LANGUAGES,
    LAST_NAMES,
    MESSAGES,
    STEMS,
    TEAM_KINDS,
    TEAMS,
    WEBSITES,
    Draw,
    Uuids,
    hex_digits,
    mix,
    titled,
    vocabulary,
)

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


_OPENING = micros(datetime(2008, 6, 1, tzinfo=UTC))
_YEAR = 365 * 86_400 * 1_000_000

# User name and display name. The people of Bitbucket's first API document come first.
_KNOWN = (
    ("jespern", "Jesper Noehr"),
    ("erik", "Erik van Zijst"),
    ("mcatalbas", "mcatalbas"),
    ("brodie", "Brodie Rao"),
    ("dchambers", "David Chambers [Atlassian]"),
    ("ubernostrum", "James Bennett"),
    ("Mimika_Oh", "Thomas “Mimika” Oh"),
)
# Slug, display name, whether it is a team, members besides the owner.
_FIRST_WORKSPACES = (
    ("jespern", "Jesper Noehr", False, ()),
    ("erik", "Erik van Zijst", False, ("jespern",)),
    ("mcatalbas", "mcatalbas", False, ("jespern",)),
    ("brodie", "Brodie Rao", False, ("jespern",)),
    ("dchambers", "David Chambers [Atlassian]", False, ("jespern",)),
    ("ubernostrum", "James Bennett", False, ()),
    ("Mimika_Oh", "Thomas “Mimika” Oh", False, ()),
    ("1team", "1Team Bot[ADM-89581]", True, ("Mimika_Oh", "erik")),
)


class Population:
    """Everybody with an account, and all workspaces in the order of their numbers."""

    def __init__(self, seed: int, generated: int) -> None:
        self.uuids = Uuids(seed, 1)
        self.team_uuids = Uuids(seed, 2)
        self.people: list[Person] = []
        self.by_name: dict[str, Person] = {}
        for username, display_name in _KNOWN:
            self._add(username, display_name, Draw(seed, 3, len(self.people)))
        for number in range(max(12, generated * 2)):
            self._generate(number, Draw(seed, 4, number))
        self.workspaces: list[SandboxWorkspace] = []
        for slug, name, team, others in _FIRST_WORKSPACES:
            owner = None if team else self.by_name[slug.lower()]
            members = [*([owner] if owner else []), *(self.by_name[other.lower()] for other in others)]
            self._open(slug, name, owner, members)
        for number in range(generated):
            self._open_generated(number, Draw(seed, 5, number), alone=generated == 1)

    def _add(self, username: str, display_name: str, draw: Draw) -> None:
        number = len(self.people)
        era = draw.pick((Era.NEW, Era.NEW, Era.MIDDLE, Era.OLD))
        created = _OPENING + draw.below(12 * _YEAR)
        person = Person(number, username, display_name, self.uuids.of(number), created, era)
        self.people.append(person)
        self.by_name[username.lower()] = person

    def _generate(self, number: int, draw: Draw) -> None:
        again, pair = divmod(number, len(FIRST_NAMES) * len(LAST_NAMES))
        # 7 and the number of pairs have no common factor: neighbours get different names.
        first_index, last_index = divmod(pair * 7 % (len(FIRST_NAMES) * len(LAST_NAMES)), len(LAST_NAMES))
        first, last = FIRST_NAMES[first_index], LAST_NAMES[last_index]
        plain = "".join(letter for letter in f"{first}.{last}".lower() if letter.isascii())
        username = draw.pick((plain, plain.replace(".", ""), plain.replace(".", "_"), plain.title()))
        username += str(again) if again else ""
        while username.lower() in self.by_name:
            username += "x"
        self._add(
            username, draw.pick((f"{first} {last}", f"{first} {last}", first, f"{last}, {first}")), draw
        )

    def _open(self, slug: str, name: str, owner: Person | None, members: list[Person]) -> None:
        number = len(self.workspaces)
        uuid = owner.uuid if owner else self.team_uuids.of(number)
        created = owner.created if owner else _OPENING + Draw(number).below(8 * _YEAR)
        self.workspaces.append(SandboxWorkspace(number, slug, name, uuid, owner, members, created))

    def _open_generated(self, number: int, draw: Draw, *, alone: bool) -> None:
        strangers = self.people[len(_KNOWN) :]
        person = strangers[number]
        members = [draw.pick_skewed(strangers) for _ in range(draw.skewed(5))]
        if alone:
            self._open("big", "Big", None, self._distinct([person, *members]))
        elif draw.one_in(3):
            self._open(person.username, person.display_name, person, self._distinct([person, *members[:1]]))
        else:
            again, pair = divmod(number, len(TEAMS) * len(TEAM_KINDS))
            kind, team = divmod(pair, len(TEAMS))
            slug = f"{TEAMS[team]}-{TEAM_KINDS[kind]}".rstrip("-") + (str(again) if again else "")
            name = slug.replace("-", " ").title()
            self._open(slug, name, None, self._distinct([person, *members]))

    @staticmethod
    def _distinct(people: list[Person]) -> list[Person]:
        return list({person.number: person for person in people}.values())
