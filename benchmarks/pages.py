"""How long pages take, requested over HTTP one after another, as by one reader.

    python benchmarks/pages.py --repositories 1000000
    python benchmarks/pages.py --database big/mirror.db
    python benchmarks/pages.py --database big/mirror.db --first 5

Prints for each page the first, the median and the slowest response in milliseconds; with `--first`, the home
page as the first request of as many servers.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from browser_fixtures import served_at
from fixtures_db import fill_many

from mirror.search.index.build import build_index
from mirror.serve.stored_queries import QUERIES

TYPED = (
    "p",
    "pr",
    "pro",
    "proj",
    "project",
    "project-7",
    "project-77",
    "ject-1",
    "oj",
    "owner777/pro",
    "zzz",
)
ASKED = {"name": "owner7/project-7", "owner": "", "tag": "v1.0", "part": "project-7"}
PAGES = {
    "as you type": [f"/-/search/options?q={typed}" for typed in TYPED],
    "search page": [f"/-/search?q={typed}" for typed in TYPED],
    "with filters": [
        f"/-/search?q={typed}&scm=hg&language=java" for typed in ("project-7", "ject-123", "pro")
    ],
    "a typing error": ["/-/search?q=porject-77", "/-/search?q=projekt-123"],
    "search.csv": ["/-/search.csv?q=project-7"],
    "home": ["/"],
    "repository": ["/-/r/owner7/project-7", "/-/r?id=77"],
    "owner": ["/-/u/owner7"],
    "changes": ["/-/changes", "/-/changes?kind=tags"],
    "status": ["/-/mirror-status"],
    "questions": ["/-/questions"],
    "tables": ["/mirror/repositories", "/mirror/branches", "/mirror/users", "/mirror"],
    "stored queries": [f"/mirror/{name}.json?{urlencode(ASKED)}" for name in QUERIES],
}


def ask(connection: http.client.HTTPConnection, path: str) -> float:
    """Request a page once; return milliseconds."""
    start = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}")
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--database", type=Path, help="a file to fill once and use again")
    parser.add_argument("--first", type=int, help="start as many servers, and request one page of each")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.database or Path(folder) / "mirror.db"
        if not path.exists():
            filled = fill_many(path, asked.repositories, tags=1)
            with filled.store.transaction() as writing:
                build_index(writing)
            filled.store.close()
        if asked.first:
            report_first(path, asked.first)
            return
        with served_at(path) as address:
            report(address, asked.times)


def report_first(path: Path, times: int) -> None:
    """Start servers, request the home page once of each, and print how long that took."""
    took = list[float]()
    for _ in range(times):
        with served_at(path) as address:
            took.append(ask(http.client.HTTPConnection(urlsplit(address).netloc), "/"))
    print(f"home, first: {min(took):.0f} to {max(took):.0f} ms, median {statistics.median(took):.0f}")


def report(address: str, times: int) -> None:
    """Request every page and print its line."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    print(f"{'':16}{'first':>10}{'median':>10}{'slowest':>10}   ms")
    for name, paths in PAGES.items():
        first = max(ask(connection, path) for path in paths)
        took = [ask(connection, path) for _ in range(times) for path in paths]
        print(f"{name:16}{first:10.1f}{statistics.median(took):10.1f}{max(took):10.1f}")


if __name__ == "__main__":
    main()
