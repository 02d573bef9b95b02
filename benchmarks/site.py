"""What a site costs: `python benchmarks/site.py [--repositories N] [--folder DIR] [--questions N]`.

Makes a mirror once in the folder, a site of it twice, each in a process of its own, and asks questions of
the site's search under Node and of the mirror: how many have the same count and the same first twenty.
"""

import argparse
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from search import fill
from search_corpus import make_names, make_queries

from mirror.queries.search import find_repositories
from mirror.queries.visibility import ANONYMOUS
from mirror.search.index.backlog import rebuild_index
from mirror.search.names import normalise
from mirror.store import Store
from mirror.store.files import open_reader

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = Path(__file__).resolve().parent.parent / "tests" / "site_node.js"


def make(path: Path, repositories: int) -> None:
    """Fill a mirror, with an owner who has many repositories."""
    names = (
        one if place % 20 else one._replace(owner="big") for place, one in enumerate(make_names(repositories))
    )
    fill(path, names)
    with Store(path) as store, store.transaction() as connection:
        rebuild_index(connection)


def made(mirror: Path, folder: Path) -> dict[str, object]:
    """Make the site in another process; return what that took."""
    config = mirror.with_name("site.toml")
    config.write_text(f"database = {json.dumps(str(mirror))}\n")
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mirror", "--config", str(config), "site", str(folder), "--json"]
    said = subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **json.loads(said.stdout),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_s": round(time.perf_counter() - begun, 1),
        "peak_mb": round(after.ru_maxrss / 1000),
    }


def questions_of(mirror: Path, count: int) -> list[str]:
    """Return what people type, a fifth of it with an owner."""
    draw = random.Random(7)
    connection = open_reader(mirror)
    some = connection.execute("SELECT full_name, name FROM repositories WHERE id % 97 = 1").fetchall()
    asked = make_queries([name for _, name in some], count)
    for place in range(0, count, 5):
        owner, _, slug = draw.choice(some)[0].partition("/")
        asked[place] = draw.choice(
            (f"{owner}/", f"{owner}/{slug[:2]}", f"{owner[:5]}/{slug[:4]}", f"big/{slug[:5]}")
        )
    return asked


def other_questions_of(mirror: Path, count: int) -> list[str]:
    """Return other kinds of texts, as many of each: whatever a search box may be given."""
    draw = random.Random(11)
    connection = open_reader(mirror)
    rows = connection.execute("SELECT full_name, name FROM repositories WHERE id % 89 = 2").fetchall()
    kinds: tuple[Callable[[str, str, str], str], ...] = (
        lambda _, __, name: " ".join(normalise(name).split("-")[:2]),
        lambda owner, slug, _: f"{owner}/{slug}",
        lambda owner, slug, _: f"{owner[:-1]}/{slug[-3:]}",
        lambda owner, slug, _: f"{owner.upper()}/{slug.upper()[:4]}",
        lambda owner, *_: f"{owner}/",
        lambda owner, *_: f"{owner[: draw.randint(1, 5)]}/",
        lambda owner, slug, _: f"{owner[: draw.randint(1, 5)]}/{draw.choice(slug)}",
        lambda owner, slug, _: f"{owner[: draw.randint(1, 5)]}/{slug[: draw.randint(2, 3)]}",
        lambda _, slug, __: f"big/{slug[: draw.randint(1, 4)]}",
        lambda _, slug, __: f"/{slug[1:4]}",
        lambda _, slug, __: f"{slug}/",
        lambda *_: str(draw.randint(0, 999)),
        lambda *_: draw.choice("abcdefghijklmnopqrstuvwxyz0123456789-_./ "),
        lambda _, slug, __: slug.replace("-", "_"),
        lambda _, slug, __: slug.replace("-", draw.choice((".", "--", "  ", "-/", "/"))),
        lambda _, __, name: name.upper(),
        lambda _, slug, __: slug[draw.randrange(len(slug)) :],
        lambda *_: draw.choice(
            ("\u4e66", "\u65e5\u672c\u8a9e", "\u30c6\u30b9\u30c8", "stra\u00dfe", "\u0130", "\U0001f600")
        ),
        lambda _, slug, __: f" {slug[:4]} ",
        lambda _, slug, __: f"{slug[:3]}%{slug[3:5]}",
    )
    return [kinds[place % len(kinds)](*_parts(draw.choice(rows))) for place in range(count)]


def misspelt_of(mirror: Path, count: int) -> list[str]:
    """Return names, or words of them, with one or two random errors."""
    draw = random.Random(5)
    connection = open_reader(mirror)
    names = [row[0] for row in connection.execute("SELECT slug FROM repositories WHERE id % 83 = 3")]
    asked = list[str]()
    while len(asked) < count:
        name = draw.choice(draw.choice(names).split("-")) if draw.random() < 0.4 else draw.choice(names)
        for _ in range(draw.choice((1, 1, 1, 2))):
            at, letter = draw.randrange(len(name)), draw.choice("abcdexyz")
            swapped = name[at : at + 2][::-1]
            name = draw.choice(
                (
                    name[:at] + name[at + 1 :],
                    name[:at] + letter + name[at:],
                    name[:at] + letter + name[at + 1 :],
                    name[:at] + swapped + name[at + 2 :],
                )
            )
        asked += [name] * (len(name) > 3)
    return asked


def _parts(row: sqlite3.Row) -> tuple[str, str, str]:
    owner, _, slug = row[0].partition("/")
    return owner, slug, row[1]


def compared(mirror: Path, site: Path, questions: list[str]) -> dict[str, object]:
    """Ask both, and count the answers with the same first twenty and the same number.

    Questions that either side corrects are counted apart: the site looks for the name in fewer places.
    """
    said = subprocess.run(
        ["node", NODE, site], input=json.dumps(questions), capture_output=True, text=True, check=True
    )
    answers = json.loads(said.stdout)
    connection = open_reader(mirror)
    plain, corrected = [0, 0], [0, 0]
    for question, answer in zip(questions, answers, strict=True):
        wanted = find_repositories(connection, ANONYMOUS, question, limit=20)
        kind = corrected if wanted.fuzzy or answer["corrected"] else plain
        wish = (wanted.count, "".join(wanted.corrected), [row.full_name for row in wanted.repositories])
        got = (answer["count"], answer["corrected"], answer["names"])
        kind[0] += 1
        kind[1] += got == wish
        if got != wish:
            print(f"differs: {question!r}: {got[:2]} for {wish[:2]}, more: {answer['more']}")
    return {
        "questions": plain[0],
        "same": plain[1],
        "typing_errors": corrected[0],
        "same_correction": corrected[1],
        "most_bytes": max(answer["bytes"] for answer in answers),
        "median_bytes": sorted(answer["bytes"] for answer in answers)[len(answers) // 2],
        "most_requests": max(answer["requests"] for answer in answers),
    }


def main() -> None:
    """Make, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    mirror, site = folder / "mirror.db", folder / "site"
    if not mirror.exists():
        make(mirror, options.repositories)
    print(json.dumps({"first": made(mirror, site)}), flush=True)
    sets = (questions_of, other_questions_of, misspelt_of)
    for asked in (set_of(mirror, options.questions) for set_of in sets):
        print(json.dumps({"search": compared(mirror, site, asked)}), flush=True)
    print(json.dumps({"second": made(mirror, site)}))


if __name__ == "__main__":
    main()
