"""Commits and refs as a function of (seed, repository): names, dates, authors and their oddities."""

from collections.abc import Sequence

from .draws import Draw, hex_digits
from .generated import SECOND
from .model import Annotation, Author, Person, Ref, Repository
from .names import BRANCH_KINDS, MESSAGES, STEMS

_GUESTS = (
    "shjohnst",
    "Lars Kanis <lars@example.org>",
    "root <root@localhost>",
    "[:Aureliano Buendía] <ab@example.com>",
    "gitflow <a68zt2nu4xpbg903w8cd6di7rk2px9@bots.example.org>",
)


def author(people: Sequence[Person], draw: Draw) -> Author:
    """Draw who wrote a commit: somebody with an account, most of the time."""
    person = draw.pick(people)
    known = Author(f"{person.display_name} <{person.username}@example.com>", person)
    match draw.below(24):
        case 0 | 1 | 2:
            return Author(draw.pick(_GUESTS))
        case 3:
            return Author(person.username, person)
        case 4:
            return Author(known.raw, person, "app_user")
        case 5:
            return Author(known.raw, person, "no_uuid")
        case _:
            return known


def new_ref(repository: Repository, kind: str, name: str, key: int, *, when: int, annotated: bool) -> Ref:
    """Make a ref that points to a commit of its own; `key` tells one push from the next."""
    draw = Draw(repository.number, key, len(name), 7)
    parent = hex_digits(repository.uuid, name, key, "parent")
    parents = ((), (parent,), (parent,), (parent, parent[::-1]))[draw.below(4)]
    ref = Ref(
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


def generated_refs(repository: Repository, seed: int) -> list[Ref]:
    """Make the branches and tags of a repository as it was before anybody edited it."""
    if repository.main_branch is None:
        return []
    draw = Draw(seed, 8, repository.number)
    branches = 1 + (draw.few(8) - 1 if not draw.one_in(450) else 60 + draw.below(120))
    tags = 0 if draw.one_in(3) else draw.few(8) if not draw.one_in(450) else 50 + draw.below(200)
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


def tip(newest: Ref) -> Ref:
    """Make Mercurial's pseudo tag, which follows the newest commit."""
    return Ref("tip", "tag", newest.target, newest.date, newest.author, newest.message, newest.parents)


def _drawn(repository: Repository, kind: str, name: str, draw: Draw) -> Ref:
    span = repository.updated - repository.created
    when = repository.created + (span * draw.below(1000) // 1000 if span > 0 else 0)
    return new_ref(repository, kind, name, draw.below(1 << 30), when=when, annotated=draw.below(3) > 0)


def _branch_names(repository: Repository, draw: Draw, count: int) -> list[str]:
    if count == 0:
        return []
    names = ["develop" if repository.scm == "git" else "stable"]
    for number in range(1, count):
        word = draw.pick(STEMS)
        names.append(
            draw.pick(
                (
                    f"{draw.early(BRANCH_KINDS)}/{repository.project}-{number}-{word}",
                    f"{draw.early(BRANCH_KINDS)}/{word}-{number}",
                    f"{word}{number}",
                    f"{word}-{1_507_071_611_996 + number}",
                )
            )
        )
    return names


def _tag_names(draw: Draw, count: int) -> list[str]:
    style = draw.pick(("v{0}.{1}.{2}", "{0}.{1}.{2}", "release-{0}.{1}.{2}", "@kit/part@{0}.{1}.{2}"))
    return [style.format(number // 30, number // 10 % 3, number % 10) for number in range(1, count + 1)]
