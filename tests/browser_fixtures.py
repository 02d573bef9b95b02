"""A real browser before a real server: chromium through Playwright, and a mirror with a past to look at."""

import contextlib
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from fixtures_db import JESPERN, PISTON, PISTON_REFS, PUBLIC, FixtureDb, hg_ref, owner, repository
from forked_command import fork_server
from live_server import serve
from npm_packages import npm_file

from mirror.config import ServeConfig
from mirror.serve.server import build
from mirror.store import tokens
from mirror.store.ledger import RequestLedger
from mirror.store.runs import finish_run, start_run
from mirror.times import to_text, utc_now

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WORDS = ("oauth", "throttling", "emitters", "docs", "python3", "json", "xml", "tests", "api")
OWNERS = ("redpanda", "annasmith", "bluebox")
AXE = "axe-core/axe.min.js"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def browser_program() -> str:
    """Return the browser's path; skips the test where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here; looked for {', '.join(BROWSERS)}")
    return found


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start a browser that sends no requests of its own."""
    program = browser_program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield running
        finally:
            running.close()


def axe_source() -> str:
    """Return the source of axe-core; skips the test where it is not installed."""
    return npm_file(AXE).read_text("utf-8")


def serious_issues(page: Any, rules: Mapping[str, Any]) -> list[Any]:
    """Return the accessibility faults that axe-core finds; the page must have axe-core."""
    found = page.evaluate("rules => axe.run({resultTypes: ['violations'], ...rules})", rules)["violations"]
    return [
        (one["id"], one["impact"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def _serve(path: str, ready: Connection) -> None:
    serve(build(Path(path), ServeConfig()), 0, ready=ready.send)


@contextlib.contextmanager
def served_at(path: Path) -> Iterator[str]:
    """Serve a file in a process of its own; give the address."""
    here, there = multiprocessing.Pipe()
    process = fork_server().Process(target=_serve, args=(str(path), there))
    process.start()
    try:
        assert here.poll(30), "the server did not start"
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def fill_lived_in(path: Path, *, private: bool = True) -> str:
    """Fill a mirror with weeks of syncs, changes of every sort and a failure; return a token to it."""
    filled = FixtureDb(path)
    filled.store.save_upstream("cloud", "cloud", "https://api.bitbucket.org/2.0")
    now = utc_now()
    _fill_repositories(filled, private=private)
    _fill_changes(filled)
    _fill_runs(filled)
    ledger = RequestLedger(filled.store)
    ledger.learn("token@api.bitbucket.org", 1000)
    for minute in range(55, 0, -1):
        for _ in range(3 + minute * 7 % 11):
            ledger.reserve("token@api.bitbucket.org", None, now - timedelta(minutes=minute))
    token = tokens.create(filled.store, "reader", "read")
    filled.store.close()
    return token


def _fill_repositories(filled: FixtureDb, *, private: bool) -> None:
    now = utc_now()
    words = ("scripts", "video", "chat", "gateway", "tools", "client", "images", "blog", "queue", "docs")
    languages = ("python", "java", "", "c++", "javascript", "go")
    rows = [
        repository(
            f"{OWNERS[n % 3]}/{('django', 'flask', 'rails', 'linux')[n % 4]}-{word}",
            scm="hg" if n % 5 == 0 else "git",
            language=languages[n % len(languages)],
            description=("A small library for everyday use.", "Backend of the web shop.", "", "Übungen")[
                n % 4
            ],
            followers_count=n * 397 % 2900,
            is_private=private and n % 7 == 3,
            size=n * 8_765_432 % 900_000_000,
            created_at=to_text(now - timedelta(days=4500 - n * 97)),
            updated_at=to_text(now - timedelta(days=n * n)),
        )
        for n, word in enumerate(words * 4)
    ]
    unique = {row.full_name: row for row in rows}
    clone = {
        "clone_https": "https://bitbucket.org/jespern/django-piston",
        "clone_ssh": "ssh://hg@bitbucket.org/jespern/django-piston",
    }
    piston = repository("jespern/django-piston", JESPERN, **{**_said(PISTON), **clone})
    filled.repositories([piston, *PUBLIC[1:], *unique.values()], at=to_text(now), first=True)
    for n, name in enumerate(unique):
        dates = [to_text(now - timedelta(days=n * n + 30 * number)) for number in range(3)]
        refs = [hg_ref("branch", word, f"{n % 10}", target_date=dates[1]) for word in WORDS[: n % 5]]
        tags = [
            hg_ref("tag", f"1.{number}", "7", target_date=date) for number, date in enumerate(reversed(dates))
        ]
        filled.refs(name, [hg_ref("branch", "master", "5", target_date=dates[0]), *refs, *tags[: n % 4]])
    with filled.store.transaction() as connection:
        known = to_text(now - timedelta(days=30))
        connection.execute("UPDATE repositories SET first_seen_at = ?", (known,))
    filled.members(owner("bluebox"), (owner("annasmith", display_name="Anna Smith"), owner("redpanda")))


def _said(row: Any) -> dict[str, object]:
    """Return the fields of a repository, except for its names."""
    left_out = ("owner", "slug", "full_name")
    return {name: getattr(row, name) for name in row.__struct_fields__ if name not in left_out}


def _fill_changes(filled: FixtureDb) -> None:
    now = utc_now()
    branches = [
        hg_ref("branch", f"feature/{word}", f"{n % 10}", target_date=to_text(now - timedelta(days=n**3)))
        for n, word in enumerate(WORDS)
    ]
    filled.refs("jespern/django-piston", [*PISTON_REFS, *branches], at=to_text(now - timedelta(days=9)))
    moved = [hg_ref("branch", "default", "e", target_date=to_text(now - timedelta(days=2)))]
    fresh = [hg_ref("tag", "0.3.0", "f", target_date=to_text(now - timedelta(days=1)), message="Third")]
    refs = [*PISTON_REFS[1:], *branches[:-1], *moved, *fresh]
    filled.refs("jespern/django-piston", refs, at=to_text(now - timedelta(hours=5)))
    renamed = repository(
        "mcatalbas/codeigniter-2", uuid="{mcatalbas/codeigniter}", description="A PHP framework"
    )
    filled.repositories([renamed], at=to_text(now - timedelta(hours=3)))
    filled.gone("ubernostrum/django-registration", at=to_text(now - timedelta(minutes=50)), reason="deleted")
    filled.failure("dchambers/django-piston", now=to_text(now - timedelta(minutes=9)))


def _fill_runs(filled: FixtureDb) -> None:
    now = utc_now()
    for day in range(29, -1, -1):
        at = now - timedelta(days=day, minutes=12)
        with filled.store.transaction() as connection:
            run = start_run(connection, filled.upstream_id, "incremental", at=to_text(at))
            counts = {"requests": 60 + day * 137 % 500, "git_requests": day * 41 % 90}
            finish_run(
                connection,
                run,
                kind="incremental",
                state="complete",
                at=to_text(at + timedelta(seconds=40)),
                counts=counts | {"slept_seconds": day * 71 % 900, "repositories_changed": day % 5},
                error=None,
            )
