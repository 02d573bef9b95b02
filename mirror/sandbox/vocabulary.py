"""The words of the sandbox: names, descriptions and messages, and slugs in the order of their popularity."""

import re
from functools import cache

# The popular ones first, as in STEMS: `Vocabulary` ranks slugs by their places.
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
