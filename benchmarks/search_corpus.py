"""Names and queries for `benchmarks/search.py`: read from files, or generated to look like real ones."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mirror.search.names import normalise

_STEMS = [
    "django", "flask", "react", "python", "data", "tool", "test", "api", "web", "bot", "docker", "config",
    "dot", "files", "node", "service", "server", "client", "auth", "user", "admin", "blog", "site", "app",
    "mobile", "android", "ios", "game", "engine", "graph", "query", "cache", "queue", "worker", "deploy",
    "build", "ansible", "terraform", "kube", "cloud", "aws", "azure", "proxy", "router", "mail", "chat",
    "wiki", "map", "image", "video", "audio", "text", "parser", "lint", "format", "schema", "model",
    "train", "learn", "vision", "speech", "robot", "sensor", "driver", "kernel", "shell", "script",
    "theme", "plugin",
]  # fmt: skip
_SOUNDS = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


class Named(NamedTuple):
    """What the search needs of a repository: a line of a names file."""

    owner: str
    slug: str
    name: str
    followers: int
    private: bool


def read_names(path: Path) -> Iterator[Named]:
    """Read tab-separated owner, slug, name, followers, private (0 or 1)."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            owner, slug, name, followers, private = line.rstrip("\n").split("\t")
            yield Named(owner, slug, name, int(followers or 0), private == "1")


def make_names(count: int, seed: int = 1) -> Iterator[Named]:
    """Generate names, three in four of them different; popular ones occur many times."""
    draw = random.Random(seed)
    popular = [_name(draw) for _ in range(max(10, count // 100))]
    for number in range(count):
        if draw.random() < 0.3:
            slug = popular[min(int(draw.paretovariate(0.4)) - 1, len(popular) - 1)]
        else:
            slug = _name(draw)
        name = slug.replace("-", " ").title() if draw.random() < 0.2 else slug
        followers = int(draw.paretovariate(1.0)) - 1 if draw.random() < 0.6 else 0
        yield Named(f"team{number % (count // 5 + 1)}", slug, name, followers, draw.random() < 0.08)


def _name(draw: random.Random) -> str:
    made = "".join(draw.choices(_SOUNDS, k=draw.randint(2, 4)))
    words = [*draw.choices(_STEMS, k=draw.randint(0, 2)), made]
    draw.shuffle(words)
    return "-".join(words)


def make_queries(names: list[str], count: int = 1000, seed: int = 2) -> list[str]:
    """Generate what people type: each keystroke of names, common and short parts, misses, typing errors."""
    draw = random.Random(seed)
    queries = list[str]()
    while len(queries) < count:
        name = normalise(draw.choice(names)) or "x"
        queries.extend(name[:length] for length in range(1, min(len(name), 9)))
        for length in (1, 2, 3, 4, 5, 8):
            at = draw.randint(0, max(len(name) - length, 0))
            queries.append(name[at : at + length])
        at = draw.randint(0, len(name) - 1)
        queries += (name.upper(), f"{draw.choice(_STEMS)} {draw.choice(_STEMS)}", draw.choice(_STEMS))
        queries += (f"{name[:at]}{name[at + 1 :]}", f"qx{draw.randint(100, 999)}zj{name[:2]}", f"{name[:3]}é")
    draw.shuffle(queries)
    return queries[:count]
