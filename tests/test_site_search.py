"""The search of a static site: under Node it answers like the mirror; in a browser it finds and follows."""

import gzip
import json
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser_fixtures import axe_source, browser, serious_issues
from fixtures_db import FixtureDb, owner, repository

from mirror.queries.search import FoundRepositories, find_repositories
from mirror.queries.visibility import ANONYMOUS
from mirror.site.build import SiteOptions, make_site
from mirror.site.shards import DIRECTORY, RARE, RARE_OWNER, Named, files, shard_file
from mirror.store.files import open_reader

STEMS = (
    "django",
    "flask",
    "web",
    "data",
    "kernel",
    "py",
    "tool",
    "a",
    "x-ray",
    "stra\u00dfe",
    "\u4e66",
    "\u13a0\u13d2",
    "\u03a3\u0391\u03a3",
)
ODD = (
    "Foo  Bar", "foo\tbar", "\ufb01sh", "\u0130stanbul", "\U0001f4a9", "a/b", "e\u0301t\u00e9", "\u1e9e",
    "\u00a0x", "\u0345y", "__proto__", "^$", "zebra\u202e-lia",
)  # fmt: skip


def fill(path: Path) -> None:
    """Fill a mirror with beginnings of many repositories, and with an owner of many."""
    draw = random.Random(3)
    filled = FixtureDb(path)
    rows = []
    for number in range(900):
        name = "-".join(draw.choices(STEMS, k=draw.randint(1, 3)))
        who = draw.choice(("big", "big", "bigger", "Team", "t\u00e9", f"o{number % 40}"))
        slug = f"{name}-{number % 60}" if number % 3 else f"s{number}"
        rows.append(
            repository(
                f"{who}/{slug}",
                owner(who),
                uuid=f"{{{number}}}",
                name=name,
                followers_count=draw.choice((None, 0, 1, 5)),
                created_at=f"20{10 + number % 9}-01-01T00:00:00.000000Z",
            )
        )
    rows += [repository(f"odd/{n}", uuid=f"{{odd{n}}}", name=name) for n, name in enumerate(ODD)]
    rows += [repository(f"who/secret{n}", uuid=f"{{p{n}}}", is_private=True) for n in range(200)]
    filled.repositories(rows, first=True)
    filled.store.close()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mirror and its site."""
    folder = tmp_path_factory.mktemp("searched")
    fill(folder / "mirror.db")
    make_site(folder / "mirror.db", folder / "www", SiteOptions())
    return folder / "mirror.db", folder / "www"


def asked(site: Path, questions: Sequence[str], way: str = "") -> list[dict[str, Any]]:
    """Search a site under Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    done = subprocess.run(
        [node, Path(__file__).with_name("site_node.js"), site, way],
        input=json.dumps(questions), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def questions_of(names: Sequence[str]) -> list[str]:
    """Return parts of names in every case, odd texts, and owners."""
    draw = random.Random(5)
    found = [
        "",
        " ",
        "/",
        "/web",
        "secret",
        "who/",
        "nobody/",
        "big/",
        "bigger/py",
        "b/",
        "TEAM/we",
        "t\u00c9/",
        "big/django-web",
        "o1/",
        "o/a",
        "a/b",
    ]
    found += [
        *STEMS,
        *ODD,
        "STRASSE",
        "\u03c3\u03b1\u03c2",
        "\uab70\uaba2",
        "\ud800",
        "web ",
        "web  data",
        "-",
        "constructor",
    ]
    for name in draw.sample(names, 60):
        start = draw.randrange(len(name) or 1)
        part = name[start : start + draw.randint(1, 9)]
        found += [part, part.upper(), name]
    return found


@pytest.fixture(scope="module")
def wanted(searched: tuple[Path, Path]) -> dict[str, FoundRepositories]:
    """What the mirror answers to each question."""
    with closing(open_reader(searched[0])) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM repositories WHERE is_private = 0")]
        return {
            question: find_repositories(connection, ANONYMOUS, question, limit=20)
            for question in questions_of(names)
        }


@pytest.mark.parametrize("way", ["shards", "disk"])
def test_a_site_answers_as_the_mirror(
    searched: tuple[Path, Path], wanted: dict[str, FoundRepositories], way: str
) -> None:
    """With the same first twenty and the same number, for any query without a correction."""
    exact = 0
    for (question, found), answer in zip(wanted.items(), asked(searched[1], [*wanted], way), strict=True):
        if found.fuzzy or answer["corrected"]:
            continue
        exact += 1
        assert (question, answer["count"]) == (question, found.count)
        assert (question, answer["names"]) == (question, [row.full_name for row in found.repositories])
    assert exact > len(wanted) - 10


def write_search(site: Path, rows: list[list[Any]]) -> None:
    """Replace the files of the search; a name is what follows the owner."""
    names: list[tuple[str, ...]] = [(row[0].partition("/")[2],) for row in rows]
    shutil.rmtree(site / "search", ignore_errors=True)
    (site / "search").mkdir()
    (site / "assets").mkdir(exist_ok=True)
    script = Path(make_site.__code__.co_filename).parent / "static/site-search.js"
    shutil.copy(script, site / "assets/site-search.copied.js")
    for name, body in files(Named(rows, names, [row[0].partition("/")[0] for row in rows])):
        (site / name).write_bytes(body)


def test_owners_of_many_are_searched_whole(tmp_path: Path) -> None:
    """A common part, among more repositories of alike owners than one file has."""
    count = RARE_OWNER + RARE + 500
    rows: list[list[Any]] = [
        [f"{'big' if number % 9 else 'bi'}/web{number}" if number < count - 400 else f"o/web{number}"]
        for number in range(count)
    ]
    write_search(tmp_path, rows)
    questions = [
        "b/",
        "bi/",
        "big/",
        "b/web",
        "bi/web",
        "big/web",
        "b/web77",
        "o/web",
        "web",
        "x/web",
        "bi/x",
    ]
    for question, answer in zip(questions, asked(tmp_path, questions), strict=True):
        owner, slash, part = question.rpartition("/")
        by = [
            row[0] for row in rows if not slash or row[0].startswith(f"{owner}{'' if owner == 'b' else '/'}")
        ]
        wanted = [name for name in by if part in name.partition("/")[2]]
        wanted.sort(key=lambda name: not name.endswith(f"/{part}"))
        assert (question, answer["count"], answer["more"]) == (question, len(wanted), False)
        assert answer["names"] == wanted[:20]
        assert answer["requests"] <= 4


def test_an_answer_that_is_not_complete_says_so(tmp_path: Path) -> None:
    """If more names begin with the same letters than one file has."""
    write_search(tmp_path, [["o/1"]])
    shard = {"until": None, "rows": [["o/same1"], ["o/same2"]], "entries": [["", -1, [0, 1]]]}
    (tmp_path / shard_file("")).write_bytes(gzip.compress(json.dumps(shard).encode()))
    found = [(one["count"], one["more"]) for one in asked(tmp_path, ["same", "same2"])]
    assert found == [(2, True), (1, True)]


MISSPELT = {
    "djagno-piston": "django-piston", "jdango-piston": "django-piston", "pistn": "piston",
    "some/djang-piston": "django-piston", "SOM/djang-pistonn": "django-piston", "kernal": "kernel",
    "zzzzzz": "", "xy": "", "\U0001f600ython": "", "other/djagno": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def misspelt(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The answers of a site of a few names to all of them, in each way."""
    folder = tmp_path_factory.mktemp("misspelt")
    rows: list[list[Any]] = [["some/django-piston"], ["other/linux-kernel"]]
    write_search(folder, rows + [[f"n/{number * 7919 % 10007}"] for number in range(500)])
    return [asked(folder, [*MISSPELT], way) for way in ("", "disk")]


@pytest.mark.parametrize("typed", MISSPELT)
def test_typing_errors_are_corrected(misspelt: list[list[dict[str, Any]]], typed: str) -> None:
    """Among names that begin or end as the text."""
    meant = MISSPELT[typed]
    for answers in misspelt:
        answer = answers[[*MISSPELT].index(typed)]
        assert (answer["corrected"], answer["more"]) == (meant, False)
        assert answer["count"] == (1 if meant else 0)
        assert answer["requests"] <= 7


def test_an_error_anywhere_is_corrected(tmp_path: Path) -> None:
    """Also where thousands of names end alike, and only among the owners that were named."""
    draw = random.Random(9)
    rows = [
        [f"{'big' if number % 9 else 'o'}/{''.join(draw.choices('bcdfghklmnprstvwz', k=5))}-python"]
        for number in range(2400)
    ]
    write_search(tmp_path, [*rows, ["o/only-here"]])
    owner, _, name = rows[1000][0].partition("/")
    questions = [f"{name[:at]}x{name[at + 1 :]}" for at in range(len(name))]
    questions += [f"{owner}/{question}" for question in questions]
    answers = asked(tmp_path, [*questions, "big/only-hexe"])
    assert [one["corrected"] for one in answers] == [name] * len(questions) + [""]
    assert {one["count"] for one in answers} == {0, 1}
    assert max(one["requests"] for one in answers) <= 7


def test_an_old_directory_in_a_cache_is_read_again(tmp_path: Path) -> None:
    """If files that it names are missing, or have other names than it says."""
    write_search(tmp_path, [[f"o/{number * 7919 % 10007}x"] for number in range(900)])
    old = (tmp_path / DIRECTORY).read_bytes()
    write_search(tmp_path, [[f"o/{number * 7919 % 10007}x{number}"] for number in range(4000)])
    (tmp_path / "search/old.json.gz").write_bytes(old)
    questions = [f"{number}x{number % 3}" for number in range(60)]
    fresh, cached = asked(tmp_path, questions), asked(tmp_path, questions, "cached")
    assert [one["names"] for one in cached] == [one["names"] for one in fresh]
    assert max(one["requests"] for one in cached) > max(one["requests"] for one in fresh)


def test_a_question_costs_few_requests(searched: tuple[Path, Path]) -> None:
    """The directory, and at most three files."""
    _, site = searched
    answers = asked(site, ["django-web", "kernel", "a", "big/", "big/web", "nobody/web", ""])
    assert max(answer["requests"] for answer in answers) <= 4
    assert max(answer["bytes"] for answer in answers) < 100_000


class Quiet(SimpleHTTPRequestHandler):
    """`python -m http.server` without its log."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def browsed(searched: tuple[Path, Path]) -> Iterator[tuple[Any, str]]:
    """A browser, and the address of the site on a plain file server."""
    with browser() as running:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(searched[1])))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield running, f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def test_a_visitor_finds_and_follows(browsed: tuple[Any, str]) -> None:
    """From the home page by the search to a repository; no console messages, no other hosts."""
    running, address = browsed
    page = running.new_page(viewport={"width": 390, "height": 800})
    said, requests = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.fill("#q", "KERNEL-web")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results li")
    count = int(page.inner_text("#results b"))
    assert count == page.locator("#results li").count() > 1
    first = page.inner_text("#results li h2")
    assert {text.lower() for text in page.locator("#results mark").all_inner_texts()} <= {
        "kernel-web",
        "kernel web",
    }
    page.fill("#q", "KERNLE-web")
    page.wait_for_selector("#results .summary a:has-text('kernel-web')")
    assert "no name contains \u201cKERNLE-web\u201d" in page.inner_text("#results .summary")
    assert len([one for one in requests if "/search/" in one]) <= 4
    page.fill("#q", "odd/e\u0301")
    page.wait_for_selector("#results b:text-is('1')")
    assert page.evaluate("location.search").startswith("?q=odd")
    page.fill("#q", "KERNEL-web")
    page.wait_for_selector(f"#results b:text-is('{count}')")
    page.click("#results li a")
    page.wait_for_selector("h1")
    assert page.inner_text("h1") == first
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert said == []
    assert {urlsplit(one).netloc for one in requests} == {urlsplit(address).netloc}
    page.close()


def test_a_small_site_is_searched_from_the_disk(
    browsed: tuple[Any, str], searched: tuple[Path, Path]
) -> None:
    """In a browser that reads only scripts there."""
    page = browsed[0].new_page()
    page.goto((searched[1] / "search.html").absolute().as_uri() + "?q=secret")
    page.wait_for_selector("#results b")
    assert page.inner_text("#results b") == "0"
    page.fill("#q", "odd/")
    page.wait_for_selector("#results li")
    assert page.locator("#results li").count() == len(ODD)
    page.fill("#q", "zebra-liat")
    page.wait_for_selector("#results .summary a")
    assert page.inner_text("#results .summary a") == r"zebra\u{202e}-lia"
    page.close()


def test_a_site_without_script_leads_to_owners(browsed: tuple[Any, str]) -> None:
    """The search page links to them."""
    running, address = browsed
    context = running.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + "search.html")
    page.click("noscript a")
    page.click("text=bigger")
    assert page.inner_text("h1") == "bigger"
    context.close()


def test_axe_finds_no_serious_issue(browsed: tuple[Any, str]) -> None:
    """On a page of every sort; in dark colours, the contrast."""
    axe = axe_source()
    running, address = browsed
    context = running.new_context(bypass_csp=True, reduced_motion="reduce")
    page = context.new_page()
    for path in ("", "search.html?q=web", "owners/index.html", "r/od/odd/0.html"):
        page.emulate_media(color_scheme="light")
        page.goto(address + path)
        if "?" in path:
            page.wait_for_selector("#results li")
        page.evaluate(axe)
        assert serious_issues(page, {}) == [], path
        page.emulate_media(color_scheme="dark")
        assert serious_issues(page, {"runOnly": ["color-contrast"]}) == [], path
    context.close()
