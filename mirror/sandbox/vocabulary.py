"""Words and chance: names, descriptions and messages, and choices that depend only on a seed."""

import re
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1

_LOW_BITS = 48

_LOW_MASK = (1 << _LOW_BITS) - 1

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


# The popular ones first, for Zipf's law.
PREFIXES = (
    "", "django", "python", "api", "react", "node", "my", "test", "java", "web", "android", "php", "docker",
    "spring", "vue", "data", "go", "rust", "ios", "hg", "flask", "rails", "angular", "unity", "wordpress",
    "laravel", "aws", "terraform", "qt", "lua",
)  # fmt: skip

STEMS = (
    "app", "server", "client", "website", "project", "utils", "blog", "tools", "piston", "registration",
    "service", "demo", "core", "config", "common", "dashboard", "auth", "bot", "docs", "library", "plugin",
    "game", "scripts", "tutorial", "template", "gateway", "shop", "backend", "frontend", "theme", "worker",
    "admin", "forms", "search", "payments", "users", "mail", "reports", "dotfiles", "profiles", "cache",
    "queue", "parser", "editor", "storage", "metrics", "deploy", "pipeline", "scheduler", "images", "chat",
    "maps", "calendar", "inventory", "orders", "billing", "notes", "wiki", "crawler", "mirror", "proxy",
    "logging", "monitor", "tagging", "comments", "gallery", "video", "audio", "physics", "solver", "graph",
    "matrix", "compiler", "kernel", "firmware", "sensor", "robot", "simulator", "genome", "survey",
    "homework", "thesis", "lectures", "exercises", "sandbox", "playground", "legacy", "migration", "backup",
    "archive", "installer", "updater", "launcher", "widgets", "icons", "fonts", "translations", "schemas",
)  # fmt: skip

FIRST_NAMES = (
    "Anna", "James", "Maria", "David", "Wei", "Olga", "José", "Fatima", "Lars", "Yuki", "Zbigniew", "Chloé",
    "Ahmed", "Priya", "Sofía", "Igor", "Ngozi", "Jürgen", "Aoife", "Mateus", "Ines", "Tomáš", "Hana", "Omar",
    "Linnea", "Paulo", "Ravi", "Eva", "Nils", "Grace",
)  # fmt: skip

LAST_NAMES = (
    "Smith", "Müller", "García", "Ivanova", "Chen", "Tanaka", "Okafor", "Nielsen", "Szczepyński", "Rossi",
    "Silva", "Kowalska", "Dubois", "Khan", "Novák", "Larsson", "Murphy", "Santos", "Patel", "Kim", "Jansen",
    "Öztürk", "Haddad", "Virtanen", "Costa", "Weber", "Lopez", "Brown", "Sato", "Petrov",
)  # fmt: skip

TEAMS = (
    "northwind", "acme", "bluebox", "redpanda", "quarkworks", "openlab", "cloudberry", "tinysoft", "hexagon",
    "lighthouse", "stonebridge", "moonshot", "greenfield", "ironwood", "paperboat", "seventhsky", "deepwell",
    "foxglove", "sandpiper", "copperhill",
)  # fmt: skip

TEAM_KINDS = ("", "labs", "team", "dev", "systems", "games", "research", "studio", "uni", "archive")

DESCRIPTIONS = (
    "",
    "A small library for everyday use.",
    "Backend of the web shop.\r\n\r\nSee the wiki for how to deploy.",
    "Übungen zur Vorlesung „Verteilte Systeme“",
    "日本語の説明: 設定とスクリプト",
    "Личные настройки и скрипты",
    "Projeto de estudo em Java™ e Android®",
    "Código del curso, año 2014",
    "Fork with bug fixes",
    'Says "hello", world; costs 5 € <b>only</b>',
    "First line\r\nSecond line\twith a tab",
    "Deprecated: use the new one.",
)

WEBSITES = ("", "", "", "http://www.example.com/", "https://example.org/projekt?x=1&y=2", "example.net")

LANGUAGES = (
    "", "", "", "", "", "", "", "", "", "python", "java", "javascript", "php", "c#", "c++", "html/css",
    "max/msp", "self", "emacs lisp", "objective-c",
)  # fmt: skip

BRANCH_KINDS = ("feature", "bugfix", "hotfix", "release", "topic", "user/anna")

MESSAGES = (
    "Fix typo\n",
    "Initial commit",
    "Merge branch 'develop'\n\nConflicts:\n\tREADME.md\n",
    "bump version\n",
    "Merged in feature/login (pull request #3)\n\nAdd login\n\nApproved-by: Anna Müller",
    "Añadir página de inicio\n",
    "修复: 空仓库\n",
    "",
)

_ASIDE = re.compile(r"[^a-z0-9_.-]+")


def slugify(name: str) -> str:
    """Return the slug of a name: lower case, no quotes, each run of other characters one hyphen."""
    slug = _ASIDE.sub("-", name.lower().replace("'", "").replace('"', "")).strip("-")
    return slug[:62] or "repository"


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


class Vocabulary:
    """An endless list of slugs in order of popularity; rank 0 is the most common one."""

    def __init__(self) -> None:
        pairs = sorted(
            ((first, second) for first in range(len(PREFIXES)) for second in range(len(STEMS))),
            key=lambda pair: ((pair[0] + 1) * (pair[1] + 1), pair),
        )
        self._words = [f"{PREFIXES[first]}-{STEMS[second]}".lstrip("-") for first, second in pairs]
        self._ranks = {word: rank for rank, word in enumerate(self._words)}

    def slug(self, rank: int) -> str:
        """Return the slug of a rank; slugs beyond the combinations of words end in a number."""
        again, word = divmod(rank, len(self._words))
        return f"{self._words[word]}-{again + 1}" if again else self._words[word]

    def rank(self, slug: str) -> int | None:
        """Return the rank of a slug, None if it has none."""
        if (rank := self._ranks.get(slug)) is not None:
            return rank
        word, _, again = slug.rpartition("-")
        if word not in self._ranks or not again.isdecimal() or again.startswith("0") or int(again) < 2:
            return None
        return self._ranks[word] + (int(again) - 1) * len(self._words)


@cache
def vocabulary() -> Vocabulary:
    """Return the list of slugs, which all worlds share."""
    return Vocabulary()
