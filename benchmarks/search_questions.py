"""Other searches: filters, owners, deep pages, and names with typing errors.

    python benchmarks/search_questions.py --repositories 1000000
    python benchmarks/search_questions.py --names names.tsv

Each search runs three times; the best time, of CPU and by the clock, is printed beside that of the plainest
SQL statement that counts the same. Then eight users ask all of them at once, each in another order. Typing
errors: of names from the file with one or two errors, how many are corrected, and in what time.
"""

import argparse
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from search import fill
from search_corpus import make_names, read_names

from mirror.search import search
from mirror.search.names import normalise
from mirror.store import Store
from mirror.store.files import open_reader

QUESTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("e", {"scm": "git"}, "scm = 'git'"),
    ("e", {"scm": "hg"}, "scm = 'hg'"),
    ("python", {"scm": "git"}, "scm = 'git'"),
    ("e", {"language": "go"}, "language = 'go'"),
    ("py", {"language": "python"}, "language = 'python'"),
    ("e", {"forks": False}, "parent_full_name IS NULL"),
    ("", {"language": "python"}, "language = 'python'"),
    ("e", {"private": True}, "is_private"),
    ("e", {"archived": False, "private": False}, "archived IS NOT 1 AND NOT is_private"),
    (
        "s",
        {"scm": "hg", "language": "java", "forks": True},
        "scm = 'hg' AND language = 'java' AND parent_full_name <> ''",
    ),
    ("tea/", {}, "owner_id IN (SELECT id FROM users WHERE username LIKE 'tea%')"),
    ("tea/py", {}, "owner_id IN (SELECT id FROM users WHERE username LIKE 'tea%')"),
    ("team1/py", {}, "owner_id IN (SELECT id FROM users WHERE username = 'team1')"),
    ("e", {"owner": "team1"}, "owner_id IN (SELECT id FROM users WHERE username = 'team1')"),
    ("", {"offset": 1000}, "1"),
    ("e", {"offset": 1000}, "1"),
    ("e", {"offset": 100_000}, "1"),
]
USERS = 8
_LANGUAGES = (
    ["python"] * 30 + ["java"] * 20 + ["javascript"] * 15 + ["go"] * 5 + [""] * 20 + ["haskell", None]
)


def main() -> None:
    """Fill a file, search, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--names", type=Path, help="tab-separated owner, slug, name, followers, private")
    parser.add_argument("--repositories", type=int, default=100_000, help="how many to make without --names")
    parser.add_argument("--database", type=Path, help="ask of this file, which the benchmark has made before")
    parser.add_argument("--keep", type=Path, help="make this file, and keep it")
    options = parser.parse_args()
    if options.database:
        _measure(options.database)
        return
    names = read_names(options.names) if options.names else make_names(options.repositories)
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as folder:
        path = options.keep or Path(folder) / "mirror.db"
        fill(path, names)
        with Store(path) as store:
            _say_more(store)
            store.finish_search_index()
        _measure(path)


def _measure(path: Path) -> None:
    with closing(open_reader(path)) as reader:
        filled = reader.execute("SELECT count(*) FROM repositories").fetchone()[0]
        print(f"{filled} repositories\n{'':42}{'matches':>10}{'CPU':>12}{'clock':>12}{'plain SQL':>12}")
        for query, said, condition in QUESTIONS:
            _ask(reader, query, said, condition)
        for errors in (1, 2):
            _mistype(reader, errors)
    _ask_at_once(path)


def _say_more(store: Store) -> None:
    """Set languages, forks and another scm on some rows; begin the names of a tenth of the owners with x."""
    draw = random.Random(5)
    with store.transaction() as connection:
        connection.execute("UPDATE users SET username = 'x' || username WHERE id % 10 = 0")
        ids = [row[0] for row in connection.execute("SELECT id FROM repositories")]
        connection.executemany(
            "UPDATE repositories SET language = ?, scm = ?, parent_full_name = ? WHERE id = ?",
            (
                (
                    draw.choice(_LANGUAGES),
                    "hg" if draw.random() < 0.07 else "git",
                    "team/tool" if draw.random() < 0.35 else None,
                    row_id,
                )
                for row_id in ids
            ),
        )


def _ask(reader: sqlite3.Connection, query: str, said: dict[str, Any], condition: str) -> None:
    part = normalise(query.rpartition("/")[2])
    counted = f"""SELECT count(*) FROM repositories WHERE deleted_at IS NULL AND {condition}
        AND (instr(replace(lower(name), ' ', '-'), :part) OR instr(replace(lower(slug), ' ', '-'), :part))"""
    seconds, cpu, found = _best(partial(search, reader, query, fuzzy=False, **said))
    plain_seconds, _, row = _best(lambda: reader.execute(counted, {"part": part}).fetchone())
    if found.count != row[0]:
        raise SystemExit(f"{query!r} {said}: {found.count} found, SQL counts {row[0]}")
    what = f"{query!r} {', '.join(f'{key}={value}' for key, value in said.items())}"
    took = f"{cpu * 1000:9.2f} ms{seconds * 1000:9.2f} ms{plain_seconds * 1000:9.0f} ms"
    print(f"{what:42}{found.count:10,}{took}")


def _ask_at_once(path: Path) -> None:
    """Let USERS ask every question at the same time, each on a connection of its own."""
    times = list[float]()

    def ask(user: int) -> None:
        with closing(open_reader(path)) as reader:
            for query, said, _ in QUESTIONS[user:] + QUESTIONS[:user]:
                begun = time.perf_counter()
                search(reader, query, fuzzy=False, **said)
                times.append(time.perf_counter() - begun)

    cpu = time.process_time()
    threads = [Thread(target=ask, args=(user,)) for user in range(USERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    each = (time.process_time() - cpu) / len(times) * 1000
    times.sort()
    median, worst = times[len(times) // 2] * 1000, times[-1] * 1000
    print(
        f"{USERS} users at once: {each:.1f} ms of CPU each, p50 {median:.0f} ms, the slowest {worst:.0f} ms"
    )


def _mistype(reader: sqlite3.Connection, errors: int) -> None:
    """Search names that no repository has as typed, and count those that are corrected."""
    draw = random.Random(errors)
    times, corrected = list[float](), 0
    for name in _some_names(reader):
        typed = name
        for _ in range(errors):
            typed = _mistyped(typed, draw)
        begun = time.thread_time()
        found = search(reader, typed)
        if found.fuzzy or not found.count:
            times.append(time.thread_time() - begun)
            corrected += found.fuzzy
    median, far = (sorted(times)[len(times) * percent // 100] * 1000 for percent in (50, 99))
    said = f"p50 {median:.2f}, p99 {far:.2f} ms of CPU"
    print(f"{errors} typing errors: {corrected} of {len(times)} corrected, {said}")


def _some_names(reader: sqlite3.Connection) -> Iterator[str]:
    highest = reader.execute("SELECT max(id) FROM repositories").fetchone()[0]
    for row_id in range(1, highest, max(1, highest // 1000)):
        name = normalise(
            reader.execute("SELECT name FROM repositories WHERE id = ?", (row_id,)).fetchone()[0]
        )
        if 5 <= len(name) <= 30:
            yield name


def _mistyped(name: str, draw: random.Random) -> str:
    """Return a text with one error: a letter missing, added, replaced, or swapped with the next."""
    at, letter = draw.randrange(len(name) - 1), draw.choice("abcdefghijklmnopqrstuvwxyz")
    ways = (
        name[:at] + name[at + 1 :],
        name[:at] + letter + name[at:],
        name[:at] + letter + name[at + 1 :],
        name[:at] + name[at + 1] + name[at] + name[at + 2 :],
    )
    return draw.choice(ways)


def _best(ask: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds by the clock and of CPU of the best of three calls, and the answer."""
    times, cpu = list[float](), list[float]()
    for _ in range(3):
        begun, begun_cpu = time.perf_counter(), time.thread_time()
        answer = ask()
        times.append(time.perf_counter() - begun)
        cpu.append(time.thread_time() - begun_cpu)
    return min(times), min(cpu), answer


if __name__ == "__main__":
    main()
