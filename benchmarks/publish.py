"""What publishing costs: `python benchmarks/publish.py [--repositories N] [--refs N] [--folder DIR]`.

Makes a mirror once in the folder (a twelfth of it private), publishes it in a process of its own, and prints
the CPU seconds and the peak of memory of that, and the sizes. With `--serve`, it also prints how long after
listening `datasette -i` answers its first page.
"""

import argparse
import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from mirror.search.index.backlog import rebuild_index
from mirror.search.index.refs.changes import rebuild_refs_index
from mirror.store import Store

NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)"
"""The numbers from 1 to :count."""

HASH = "lower(hex(randomblob(20)))"
AGE = "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1200000000 + {}, 'unixepoch')"
UUID = "'{{' || printf('%08x-0000-4000-8000-%012x', {0} * 2654435761 % 4294967296, {0}) || '}}'"


def make(path: Path, repositories: int, refs: int) -> None:
    """Fill a mirror with rows of realistic sizes, by SQL."""
    make_repositories(path, repositories)
    make_refs(path, max(1, refs // repositories))


def make_repositories(path: Path, repositories: int) -> None:
    """Fill a mirror with repositories and their owners."""
    owners = max(1, repositories // 5)
    with Store(path) as store, store.transaction() as connection:
        store.save_upstream("cloud", "cloud", "https://api.bitbucket.org/2.0")
        connection.execute(
            f"""{NUMBERS} INSERT INTO users (id, upstream_id, uuid, username, display_name, kind, is_owner,
                first_seen_at, last_seen_at, avatar_url)
            SELECT n, 1, {UUID.format("n")}, 'owner' || n, 'Owner Number ' || n, 'team', 1,
                '2026-01-01T00:00:00.000000Z', '2026-11-01T00:00:00.000000Z',
                'https://bitbucket.org/account/owner' || n || '/avatar/' FROM numbers""",
            {"count": owners},
        )
        connection.execute(
            f"""{NUMBERS} INSERT INTO repositories (id, upstream_id, uuid, owner_id, slug, name, full_name,
                scm, is_private, description, website, language, size, main_branch, fork_policy, parent_id,
                parent_uuid, parent_full_name, followers_count, forks_count, has_issues, has_wiki,
                project_key, project_name, avatar_url, clone_https, clone_ssh, created_at, updated_at,
                first_seen_at, last_seen_at, refs_synced_at, refs_stale)
            SELECT n, 1, {UUID.format("n + 1000000000")}, owner, slug, replace(slug, '-', ' '),
                'owner' || owner || '/' || slug, 'git', n % 12 = 5,
                'A small library for everyday use, with a description of usual length.', '', 'python',
                n * 7919 % 10000000, 'main', 'allow_forks', iif(n % 9 = 0, n / 9, NULL),
                iif(n % 9 = 0, {UUID.format("n / 9 + 1000000000")}, NULL), iif(n % 9 = 0, 'a/parent', NULL),
                n % 50, iif(n * 9 <= :count, 1, 0), 1, 0, 'PROJ', 'Project',
                'https://bytebucket.org/ravatar/' || n || '?ts=default',
                'https://bitbucket.org/owner' || owner || '/' || slug || '.git',
                'git@bitbucket.org:owner' || owner || '/' || slug || '.git',
                {AGE.format("n * 97 % 300000000")}, {AGE.format("300000000 + n * 31 % 200000000")},
                '2026-01-01T00:00:00.000000Z', '2026-11-01T00:00:00.000000Z', '2026-11-01T00:00:00.000000Z', 0
            FROM (SELECT n, 1 + n * 31 % {owners} AS owner,
                substr('django-flask-react-vue-node-rails-', 1 + n % 29, 6 + n % 5) || '-' || n AS slug
                FROM numbers)""",
            {"count": repositories},
        )


def make_refs(path: Path, each: int) -> None:
    """Give each repository refs, index everything, and finish as a run does."""
    with Store(path) as store, store.transaction() as connection:
        for table, share in (("branches", each // 2), ("tags", each - each // 2)):
            connection.execute(
                f"""{NUMBERS} INSERT INTO {table} (repository_id, name, target_hash, target_date,
                    target_author, target_author_name, target_author_uuid, target_message, target_parents)
                SELECT r.id, iif(n = 1, 'main', '{table}/change-' || n), {HASH}, {AGE.format("r.id * 97")},
                    'Some Author <author' || r.id % 1000 || '@example.com>', 'Some Author',
                    {UUID.format("r.id % 1000")}, 'Mend what was broken in ' || r.slug || char(10),
                    '["' || {HASH} || '"]'
                FROM repositories r CROSS JOIN numbers ORDER BY r.id""",
                {"count": share},
            )
        connection.execute(
            """INSERT INTO sync_runs (upstream_id, kind, started_at, finished_at, state) VALUES
               (1, 'full', '2026-11-01T00:00:00.000000Z', '2026-11-01T01:00:00.000000Z', 'complete')"""
        )
        rebuild_index(connection)
        rebuild_refs_index(connection)


def measure(mirror: Path, target: Path, more: list[str]) -> dict[str, object]:
    """Publish in another process; return what that took."""
    config = mirror.with_name("publish.toml")
    config.write_text(f"database = {json.dumps(str(mirror))}\n")
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "mirror", "--config", config, "publish", target, "--force", *more], check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_s": round(time.perf_counter() - begun, 1),
        "peak_mb": round(after.ru_maxrss / 1024),
        "mirror_mb": round(mirror.stat().st_size / 1e6),
        "published_mb": round(target.stat().st_size / 1e6),
    }


def measure_first_page(target: Path, inspect: Path) -> dict[str, float]:
    """Start `datasette -i`; return the seconds until it listens, and from then to its first page."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "datasette", "-i", str(target), "--inspect-file", str(inspect)]
    begun = time.perf_counter()
    with subprocess.Popen([*command, "-p", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.02)
            listens = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                answer.read()
            return {"listens_s": round(listens - begun, 2), "page_s": round(time.perf_counter() - listens, 2)}
        finally:
            server.terminate()


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--refs", type=int, default=800_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--serve", action="store_true")
    asked, more = parser.parse_known_args()
    folder = asked.folder or Path(tempfile.mkdtemp())
    mirror, target, inspect = (folder / name for name in ("mirror.db", "public.db", "inspect.json"))
    if not mirror.exists():
        make(mirror, asked.repositories, asked.refs)
    with closing(sqlite3.connect(mirror)) as connection:  # so that it does not count as the publisher's work
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    result = measure(mirror, target, ["--inspect", str(inspect), *more])
    if asked.serve:
        result |= measure_first_page(target, inspect)
    print(json.dumps({**result, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
