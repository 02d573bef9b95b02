"""People and workspaces, most of them generated, and the fixed repositories.

The fixed ones are the examples of Bitbucket's first API document, and oddities that were seen in real data.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mirror.sandbox.generate import Draw, Uuids, new_ref, tip
from mirror.sandbox.model import (
    CommitAuthor,
    Era,
    Person,
    SandboxRef,
    SandboxRepository,
    SandboxWorkspace,
    micros,
)
from mirror.sandbox.vocabulary import FIRST_NAMES, LAST_NAMES, TEAM_KINDS, TEAMS

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


_HG_DAY = micros(datetime(2009, 5, 3, 10, 20, 30, 123_456, tzinfo=UTC))
_GIT_DAY = micros(datetime(2019, 5, 3, 10, 20, 30, 123_456, tzinfo=UTC))
_WEEK = 7 * 86_400 * 1_000_000
_WHOLE_SECOND = micros(datetime(2008, 8, 1, 1, 53, 20, tzinfo=UTC))

_PRIVATE = {"is_private": True}
_HG = {"scm": "hg", "main_branch": "default"}
_EMPTY = {"main_branch": None, "size": 0}

# Workspace, slug, and the differences from a plain git repository. Tests rely on the order: add at the end.
_EXAMPLES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "jespern",
        "django-piston",
        {**_HG, "followers": 173, "description": "Piston is a Django mini-framework creating APIs."},
    ),
    ("jespern", "arriving", {**_HG, **_PRIVATE}),
    ("jespern", "jespern", {**_HG, **_PRIVATE}),
    ("jespern", "jespern-jekyll", {**_HG, **_PRIVATE, "website": None}),
    ("jespern", "bitbucket-issue-query", {**_HG, **_PRIVATE, **_EMPTY}),
    ("erik", "org.eclipse.mylyn.bitbucket", {**_PRIVATE, "language": "java"}),
    ("mcatalbas", "codeigniter", {"name": "CodeIgniter", "language": "php", "followers": 12}),
    ("brodie", "hg-project", {**_HG, **_PRIVATE}),
    ("dchambers", "django-piston", {**_HG, "parent": 0, "followers": 3}),
    (
        "ubernostrum",
        "django-registration",
        {**_HG, "followers": 159, "description": "A user-registration application for Django."},
    ),
    (
        "ubernostrum",
        "django-profiles",
        {**_HG, "followers": 60, "description": "A user-profile application for Django."},
    ),
)

_ODDITIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Mimika_Oh", "vipers-nest", {**_HG, "name": "viper's nest", "era": Era.OLD, "language": "python"}),
    ("Mimika_Oh", "xmlsocketnet", {**_HG, "name": "XMLSocket.NET", "language": "c#", "website": None}),
    ("1team", "hello-asd", {"name": "HELLO (ASD)", "main_branch": "main", "archived": True}),
    (
        "1team",
        "https-mthiagarajan-bitbucket-org-blimessaging-pipinghotdeals",
        {"name": "https://MThiagarajan@bitbucket.org/blimessaging/pipinghotdeals"},
    ),
    ("Mimika_Oh", "qi", {"description": "日本語\r\nДля себя\r\nPortuguês®", "era": Era.MIDDLE}),
    ("1team", "never-pushed", {**_EMPTY, "website": None}),
    ("1team", "no-mainbranch-key", {"main_branch_shape": "absent", "era": Era.OLD}),
    ("1team", "mainbranch-of-2017", {"main_branch_shape": "empty", "era": Era.MIDDLE}),
    ("Mimika_Oh", "django-piston", {**_HG, "parent": 0, "description": "My fork"}),
    ("Mimika_Oh", "identifox", {"created": _WHOLE_SECOND + 500_000, "updated": _WHOLE_SECOND}),
    ("Mimika_Oh", "on-the-second", {"created": _WHOLE_SECOND, "updated": _WHOLE_SECOND + _WEEK}),
    ("1team", "special-refs", {"name": "Special Refs", "language": "emacs lisp"}),
    ("1team", "big-one", {"size": 887_709_436, "language": "c++"}),
    ("1team", "secret.plans", {**_PRIVATE, "fork_policy": "no_forks", "description": "nobody's business"}),
    (
        "Mimika_Oh",
        "html-css",
        {"name": "HTML + CSS", "language": "html/css", "website": "http://例え.テスト/"},
    ),
    ("1team", "closed-branches", {**_HG, "name": "closed branches"}),
    ("1team", "many-refs", {"name": "many-refs", "followers": 2}),
    ("Mimika_Oh", "codeigniter", {"name": "CodeIgniter", "parent": 6}),
)

SPECIAL_BRANCHES = ("master", "feature/x", "feature/BB-1", 'quo"te', "100%-done", "issue#12", "ünïcödé/naïve")
SPECIAL_TAGS = (
    'special-"$;><&#_=@!|.,/test',
    "@atlaskit/activity@1.0.3",
    "feature/x",
    "v1.0%20",
    "1.0+build#7",
)


def handmade_repositories(
    total: int, workspaces: Iterable[SandboxWorkspace], uuids: Uuids
) -> list[SandboxRepository]:
    """Return the examples, and as many of the oddities as a world of `total` repositories has room for."""
    by_slug = {workspace.slug: workspace for workspace in workspaces}
    room = max(0, total - len(_EXAMPLES)) // 3
    rows = [
        _row(number, by_slug[owner], slug, differences, uuids)
        for number, (owner, slug, differences) in enumerate(_EXAMPLES + _ODDITIES[:room])
    ]
    for row in rows:
        _fill_refs(row)
    return rows


def _row(
    number: int, workspace: SandboxWorkspace, slug: str, differences: dict[str, Any], uuids: Uuids
) -> SandboxRepository:
    created = (_HG_DAY if differences.get("scm") == "hg" else _GIT_DAY) + number * _WEEK
    plain = SandboxRepository(
        number=number,
        workspace=workspace,
        slug=slug,
        name=slug,
        uuid=uuids.of(number),
        scm="git",
        created=created,
        updated=created + _WEEK,
        size=4_711 * (number + 1),
        main_branch="master",
    )
    return replace(plain, **differences)


def _fill_refs(row: SandboxRepository) -> None:
    match row.full_name:
        case "jespern/django-piston":
            row.refs = _refs(row, ("default",), ("0.2.1", "0.2.2", "0.2.3"))
        case "1team/special-refs":
            row.refs = _refs(row, SPECIAL_BRANCHES, SPECIAL_TAGS)
            _set_odd_authors(row, row.refs)
        case "1team/closed-branches":
            row.refs = _refs(row, ("default", "closed", "two-heads"), ("Gtk Release", "1.0"))
            row.refs[1].heads = ()
            row.refs[2].heads = (row.refs[2].target, row.refs[2].target[::-1])
        case "1team/many-refs":
            branches = ("master", *(f"feature/MANY-{number}" for number in range(1, 130)))
            row.refs = _refs(row, branches, tuple(f"v0.{number}" for number in range(120)))
        case _:
            pass


def _refs(row: SandboxRepository, branches: tuple[str, ...], tags: tuple[str, ...]) -> list[SandboxRef]:
    refs = [new_ref(row, "branch", name, 1, when=row.updated, annotated=False) for name in branches]
    for number, name in enumerate(tags):
        ref = new_ref(row, "tag", name, 1, when=row.created, annotated=number % 2 == 0)
        ref.silent = number % 4 == 1
        refs.append(ref)
    if row.scm == "hg":
        refs[0].heads = (refs[0].target,)
        refs.append(tip(refs[0]))
    return refs


def _set_odd_authors(row: SandboxRepository, refs: list[SandboxRef]) -> None:
    person = row.workspace.members[0]
    refs[0].author = CommitAuthor("shjohnst")
    refs[1].author = CommitAuthor("bot <bot@example.com>", person, "app_user")
    refs[2].author = CommitAuthor("Mimika <mimika@example.com>", person, "no_uuid")
