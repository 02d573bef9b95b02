"""Who lives in the simulated Bitbucket: people, their own workspaces, and teams."""

from datetime import UTC, datetime

from .draws import Draw, Uuids
from .model import Era, Person, Workspace, micros
from .names import FIRST_NAMES, LAST_NAMES, TEAM_KINDS, TEAMS

_OPENING = micros(datetime(2008, 6, 1, tzinfo=UTC))
_YEAR = 365 * 86_400 * 1_000_000

# User name, display name; the seed document's people come first.
_KNOWN = (
    ("jespern", "Jesper Noehr"),
    ("erik", "Erik van Zijst"),
    ("mcatalbas", "mcatalbas"),
    ("brodie", "Brodie Rao"),
    ("dchambers", "David Chambers [Atlassian]"),
    ("ubernostrum", "James Bennett"),
    ("Mimika_Oh", "Thomas “Mimika” Oh"),
)
# Workspace, its display name, whether it is a team, members besides the owner.
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
        self.workspaces: list[Workspace] = []
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
        # 7 is prime to the number of pairs: neighbours get different names.
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
        self.workspaces.append(Workspace(number, slug, name, uuid, owner, members, created))

    def _open_generated(self, number: int, draw: Draw, *, alone: bool) -> None:
        strangers = self.people[len(_KNOWN) :]
        person = strangers[number]
        members = [draw.early(strangers) for _ in range(draw.few(5))]
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
