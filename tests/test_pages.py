"""The pages for strangers and for holders of tokens: contents, links, security policy."""

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from datasette.app import Datasette
from fixtures_db import LATER, PISTON, FixtureDb, hg_ref, owner, repository

from mirror.serve.middleware import STRICT
from mirror.serve.pages import datasette
from mirror.serve.plugin import ROUTES, TEMPLATES

PAGES = (
    "/", "/-/search", "/-/search?q=django", "/-/r/jespern/django-piston", "/-/u/jespern", "/-/changes",
    "/-/mirror-status", "/-/mirror-login", "/-/r/no/body", "/-/u/nobody",
    "/-/refs?q=m",
)  # fmt: skip


@pytest.fixture
def public(public_path: Path) -> AsgiClient:
    """A served mirror with public rows alone."""
    return client_of(public_path)


@pytest.fixture
def mixed(mixed_db: FixtureDb) -> tuple[AsgiClient, dict[str, str]]:
    """A served mirror with private rows, and its tokens."""
    tokens = make_tokens(mixed_db.store)
    mixed_db.store.close()
    return client_of(mixed_db.path, trust_basic_user=True), tokens


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_strict_content_policy(public: AsgiClient, path: str) -> None:
    """The page needs nothing that the policy forbids."""
    answer = public.get(path)
    assert answer.headers["content-security-policy"] == STRICT
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", answer.text)
    sources = re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', answer.text)
    assert sources
    assert all(source.startswith("/") and not source.startswith("//") for source in sources)


def test_datasettes_own_pages_load_nothing_from_elsewhere(public: AsgiClient) -> None:
    """Only their own small scripts may run; nothing comes from other hosts; APIs have their own policy."""
    for path in ("/mirror", "/mirror/repositories", "/-/index", "/-/metadata"):
        policy = public.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert (
        public.get("/1.0/users/jespern").headers["content-security-policy"].startswith("default-src 'none'")
    )


@pytest.mark.parametrize("path", ["/mirror", "/mirror/repositories", "/mirror?sql=select+1", "/-/index"])
def test_scripts_of_datasettes_pages_are_allowed_by_nonce(public: AsgiClient, path: str) -> None:
    """Each has the nonce of the response, and no element has an inline handler."""
    answer = public.get(path)
    (nonce,) = re.findall("'nonce-([^']+)'", answer.headers["content-security-policy"])
    scripts = re.findall("<script[^>]*>", answer.text)
    assert scripts
    assert all(f'nonce="{nonce}"' in script for script in scripts)
    markup = re.sub("<script[^>]*>.*?</script>", "", answer.text, flags=re.DOTALL)
    assert not re.search(r"<[^>]*\son\w+=", markup)


def test_assets_are_cached_under_their_hash(public: AsgiClient) -> None:
    """Also for logged-in visitors; a name with another hash is not found."""
    (address,) = re.findall(r'href="(/-/mirror-assets/[^"]*css)"', public.get("/").text)
    for cookies in ({}, {"ds_actor": "anything"}):
        answer = public.get(address, cookies=cookies)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert public.get("/-/mirror-assets/mirror.000000000000.css").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_pages_write_nothing(public: AsgiClient, path: str) -> None:
    """HEAD is GET without a body, and nothing else is allowed."""
    head = public("HEAD", path)
    assert head.status_code == public.get(path).status_code
    if "login" not in path:
        assert head.content == b""
        assert public("DELETE", path).status_code == 405


def test_home_shows_the_age_of_the_mirror(public: AsgiClient) -> None:
    """Counts, the last complete sync, and the latest changes."""
    page = public.get("/").text
    assert "5 repositories of 5 owners" in page
    assert "not yet complete" in page
    assert 'href="/-/changes.atom"' in page
    assert 'action="/-/search"' in page


def test_datasettes_index_is_home_without_a_mirror(public: AsgiClient, tmp_path: Path) -> None:
    """Beside a mirror it has another address."""
    assert "tables" in public.get("/-/index").text
    assert public.json("/.json")["mirror"]["tables_count"] > 5
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE things (id)")
    alone = AsgiClient(Datasette([str(tmp_path / "other.db")]))
    assert 'href="/other"' in alone.get("/").text
    assert alone.get("/-/search").status_code == 404


def test_base_url_goes_before_every_address(public_path: Path) -> None:
    """Links of a mirror below a path stay below it."""
    below = AsgiClient(Datasette([str(public_path)], settings={"base_url": "/below/"}))
    for path in ("", "-/search?q=django", "-/r/jespern/django-piston", "-/questions", "mirror/repositories"):
        page = below.get(f"/{path}")
        assert page.status_code == 200
        addresses = re.findall(r'(?:href|src|action|data-suggest)="(/[^"]*)"', page.text)
        assert addresses
        assert all(address.startswith("/below/") for address in addresses), addresses


def test_a_repositorys_page_shows_every_column(public: AsgiClient) -> None:
    """Description, website, newest tag, refs, forks, and links to the data."""
    page = public.get("/-/r/JESPERN/Django-Piston").text
    for told in (
        "Piston is a Django mini-framework", "http://bitbucket.org/jespern/", "0.2.3", "The third", "173",
        'href="/-/r/dchambers/django-piston"', 'href="/mirror/repositories/1"',
        'href="/1.0/repositories/jespern/django-piston"', 'href="/2.0/repositories/jespern/django-piston"',
        "888 MB",
    ):  # fmt: skip
        assert told in page, told
    assert page.index("0.2.2") < page.index(">0.2.1<")
    fork = public.get("/-/r/dchambers/django-piston").text
    assert "Parent and forks" in fork
    assert 'href="/-/r/jespern/django-piston"' in fork


def test_refs_are_searched_sorted_and_paged(tmp_path: Path) -> None:
    """Each table has its own parameters; filters keep the order, and the order keeps the filter."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("big/one")], first=True)
    refs = [
        hg_ref("tag", f"v{n:03}", "a", target_date=f"2020-01-01T00:{n % 60:02}:00.000000Z") for n in range(60)
    ]
    filled.refs("big/one", refs)
    filled.store.close()
    served = client_of(tmp_path / "mirror.db")

    def names(query: str) -> list[str]:
        return re.findall(
            r'<th scope="row"><a[^>]*><bdi>(v\d+)</bdi>', served.get(f"/-/r/big/one{query}").text
        )

    assert names("")[:2] == ["v059", "v058"]
    assert names("?tags_by=name")[:2] == ["v000", "v001"]
    assert names("?tags_by=oldest")[:2] == ["v000", "v001"]
    assert names("?tags_by=last")[:2] == ["v059", "v058"]
    assert names("?tags_by=drop+table") == names("")
    assert names("?tags=V01&tags_by=name") == [f"v01{n}" for n in range(10)]
    assert names("?tags_page=3&tags_by=name") == [f"v0{n}" for n in range(50, 60)]
    assert names("?tags_page=99") == []
    assert "tags_page=3#tags" in served.get("/-/r/big/one?tags_page=99").text
    assert "tags_by=name" in served.get("/-/r/big/one?tags_by=name&tags=0").text


def test_a_gone_repository_keeps_its_refs_on_its_page(public: AsgiClient, tmp_path: Path) -> None:
    """With a notice of the reason, and the last known refs."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.gone(PISTON.full_name)
    filled.store.close()
    page = public.get("/-/r/jespern/django-piston").text
    assert "Found gone upstream" in page
    assert "0.2.2" in page


def test_forks_of_forks_are_a_tree_even_in_a_circle(tmp_path: Path) -> None:
    """Each fork is listed once, below its parent."""
    filled = FixtureDb(tmp_path / "mirror.db")
    names = ["a/x", "b/x", "c/x"]
    rows = [repository(names[0])]
    rows += [
        repository(name, parent_uuid=f"{{{parent}}}", parent_full_name=parent)
        for parent, name in pairwise(names)
    ]
    filled.repositories(rows, first=True)
    served = client_of(tmp_path / "mirror.db")
    page = served.get("/-/r/a/x").text
    assert re.search(r'<b><bdi>a/x<.*<ul><li><a href="/-/r/b/x".*<ul><li><a href="/-/r/c/x"', page, re.DOTALL)
    page = served.get("/-/r/b/x").text
    assert re.search(r'href="/-/r/a/x".*<ul><li><b><bdi>b/x<.*<ul><li><a href="/-/r/c/x"', page, re.DOTALL)
    with filled.store.transaction() as connection:
        connection.execute("UPDATE repositories SET parent_id = 3 WHERE id = 1")
    page = served.get("/-/r/a/x").text
    assert page.count('href="/-/r/c/x"') == 1
    assert served.get("/-/r/c/x").text.count('href="/-/r/a/x"') == 1
    filled.store.close()


def test_an_owners_page_sorts_its_repositories(public: AsgiClient) -> None:
    """By last update by default."""
    page = public.get("/-/u/JESPERN").text
    assert "Jesper Noehr" in page
    assert 'href="/-/r/jespern/django-piston"' in page
    for order in ("name", "followers", "size", "nonsense"):
        assert public.get(f"/-/u/jespern?by={order}").status_code == 200
    assert public.get("/-/u/nobody").status_code == 404
    assert 'name="q" type="search" value="nobody"' in public.get("/-/u/nobody").text
    assert 'type="search" value="django-pistol"' in public.get("/-/r/jespern/django-pistol").text


def test_members_are_shown_to_members(mixed: tuple[AsgiClient, dict[str, str]]) -> None:
    """And to holders of a token without a user, to nobody else."""
    served, tokens = mixed
    assert "mcatalbas" not in served.get("/-/u/brodie").text
    assert "mcatalbas" in served.get("/-/u/brodie", headers=bearer(tokens["read"])).text
    assert "mcatalbas" in served.get("/-/u/brodie", headers=basic("mcatalbas", "any")).text
    assert "mcatalbas" not in served.get("/-/u/brodie", headers=basic("jespern", "any")).text


def test_private_pages_are_404_for_strangers(mixed: tuple[AsgiClient, dict[str, str]]) -> None:
    """Equal to the page of a missing repository, byte for byte, except for the name."""
    served, tokens = mixed
    hidden = served.get("/-/r/jespern/arriving")
    missing = served.get("/-/r/jespern/arrivinx")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("arriving", "arrivinx") == missing.text
    assert served.get("/-/r/jespern/arriving", headers=bearer(tokens["read"])).status_code == 200
    assert served.get("/-/r/jespern/arriving", headers=basic("jespern", "any")).status_code == 200
    assert served.get("/-/r/brodie/hg-project", headers=basic("jespern", "any")).status_code == 404


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/-/u/brodie", "The mirror has no owner brodie"),
        ("/-/u/nobody", "The mirror has no owner nobody"),
        ("/-/r/jespern/arriving", "The mirror has no jespern/arriving"),
        ("/-/r/jespern/arriving?at=2026-11-29", "The mirror holds no repository jespern/arriving"),
        ("/-/r?id=6&at=2026-11-29", "The mirror holds no such repository"),
    ],
)
def test_what_may_be_hidden_is_not_denied(
    mixed: tuple[AsgiClient, dict[str, str]], path: str, message: str
) -> None:
    """A stranger is not told that something hidden does not exist; who sees everything is told plainly."""
    served, tokens = mixed
    assert f'<p dir="auto">{message}, or you may not see it.</p>' in served.get(path).text
    plain = served.get("/-/u/nobody", headers=bearer(tokens["read"])).text
    assert '<p dir="auto">The mirror has no owner nobody.</p>' in plain


@pytest.mark.parametrize("at", ["2001-01-01", "soon", "2999-01-01"])
def test_a_message_about_the_past_is_a_sentence(public: AsgiClient, at: str) -> None:
    """It begins with a capital letter, or a quotation, and ends with a full stop."""
    for path in ("/-/r/jespern/django-piston", "/-/u/jespern"):
        (message,) = re.findall(r'<p dir="auto">(.*?)</p>', public.get(path, params={"at": at}).text)
        assert re.fullmatch(r"(&#39;|[A-Z]).*\.", message)


def test_a_page_beyond_the_last_is_not_called_empty(public: AsgiClient) -> None:
    """An owner's page beyond the last leads back, and does not say that there are no repositories."""
    answer = public.get("/-/u/jespern?page=9").text
    assert "There is no page 9." in answer
    assert "← Last page" in answer
    assert "None that you may see" not in answer


def test_counts_and_charts_include_visible_rows_only(mixed: tuple[AsgiClient, dict[str, str]]) -> None:
    """Strangers see public numbers, and no numbers of requests."""
    served, tokens = mixed
    home, status = served.get("/").text, served.get("/-/mirror-status").text
    assert "7 repositories" in home
    assert "private</span>" not in home
    assert "of the budget" not in status
    assert "Log in" in status
    everything = served.get("/", headers=bearer(tokens["read"])).text
    assert "10 repositories" in everything
    assert "3 private" in everything


def test_an_edit_does_not_name_a_hidden_parent(mixed_db: FixtureDb) -> None:
    """Strangers see the other fields of such an edit."""
    token = make_tokens(mixed_db.store)["read"]
    moved = repository(
        "mcatalbas/codeigniter", language="php", name="CodeIgniter", description="told",
        parent_full_name="jespern/arriving",
    )  # fmt: skip
    mixed_db.repositories([moved], at=LATER)
    mixed_db.store.close()
    served = client_of(mixed_db.path)
    for path in ("/-/r/mcatalbas/codeigniter", "/-/changes", "/"):
        assert "told" in served.get(path).text
        assert "arriving" not in served.get(path).text
        assert "arriving" in served.get(path, headers=bearer(token)).text


def test_changes_are_filtered_and_paged(public_db: FixtureDb) -> None:
    """By kind, group, owner, ref, repository and time; an invalid time is reported."""
    for number in range(60):
        public_db.refs("dchambers/django-piston", [hg_ref("branch", f"work-{number}", "a")])
    public_db.repositories(
        [repository("mcatalbas/renamed", owner("mcatalbas"), uuid="{mcatalbas/codeigniter}")]
    )
    public_db.store.close()
    served = client_of(public_db.path)

    def kinds(query: str) -> list[str]:
        page = served.get(f"/-/changes{query}").text
        return re.findall(r'<span class="did">([^<]*)</span>', page)

    assert len(kinds("")) == 50
    assert set(kinds("?kind=branch_deleted")) == {"lost the branch"}
    assert set(kinds("?kind=branches")) == {"lost the branch", "has a new branch"}
    assert kinds("?kind=renamed&owner=MCATALBAS") == ["was renamed"]
    assert kinds("?ref=WORK-59") == ["has a new branch"]
    assert kinds("?repository=2&kind=renamed") == ["was renamed"]
    assert kinds("?until=2026-01-01") == []
    assert kinds("?since=2026-10-01&kind=renamed") == ["was renamed"]
    assert "is not a time" in served.get("/-/changes?since=soon").text
    counts, address = list[int](), "/-/changes?kind=branches"
    while address:
        page = served.get(address).text
        counts.append(page.count('class="did"'))
        address = "".join(re.findall(r'rel="next" href="([^"]*)"', page)).replace("&amp;", "&")
    assert counts == [50, 50, 19]
    assert "The latest" in page


def test_tables_link_to_pages_and_show_their_age(public: AsgiClient) -> None:
    """Names in tables and queries are links, column notes fold, the footer shows the age."""
    page = public.get("/mirror/repositories").text
    assert 'href="/-/r/jespern/django-piston"' in page
    assert '<details class="column-notes">' in page
    assert "Mirror of cloud: complete never" in page
    assert 'href="/-/u/jespern"' in public.get("/mirror/who_owns_most").text
    assert "mirror_foot" not in page


def test_datasettes_pages_have_the_mirrors_navigation(public: AsgiClient) -> None:
    """A language, landmarks, labelled fields, a way back; results of a query are labelled as such."""
    for path in ("/mirror", "/mirror/repositories", "/mirror/repositories/1", "/mirror/nothing", "/-/index"):
        page = public.get(path).text
        for told in (
            '<html lang="en">',
            '<main class="content" id="main"',
            'href="/-/questions"',
            'href="/"',
        ):
            assert told in page, (path, told)
    table = public.get("/mirror/repositories").text
    assert '<select aria-label="Column to filter by" name="_filter_column"' in table
    assert 'type="text" aria-label="Value to compare with" name="_filter_value"' in table
    stale = public.get("/mirror/stale?days=1000").text
    assert "<h2>Answer: 4 rows" in stale
    assert "<title>Stale repositories · Bitbucket mirror</title>" in stale
    assert "cross-database" not in public.get("/mirror").text  # as the temporary views of SQL are none
    assert "<h2>Answer" in public.get("/mirror/gone").text
    assert "<h2>Custom SQL query" in public.get("/mirror?sql=select+1").text


def test_other_databases_keep_their_own_look(tmp_path: Path, public_path: Path) -> None:
    """No links, footer or stylesheet on tables of other databases."""
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE things (full_name TEXT)")
        other.execute("INSERT INTO things VALUES ('jespern/django-piston')")
        other.commit()
    both = AsgiClient(Datasette([str(public_path), str(tmp_path / "other.db")]))
    page = both.get("/other/things").text
    assert "/-/r/" not in page
    assert "Mirror of" not in page
    assert "mirror-assets" not in page
    assert "/-/questions" not in page


def test_an_operator_may_close_the_pages(public_path: Path) -> None:
    """Datasette's `allow` rules apply to the pages too."""
    rules: list[dict[str, Any]] = [{"allow": False}, {"databases": {"mirror": {"allow": False}}}]
    for metadata in rules:
        closed = AsgiClient(Datasette([str(public_path)], metadata=metadata))
        for path in ("/", "/-/search.json", "/-/r/jespern/django-piston"):
            assert closed.get(path).status_code == 403
            assert "Piston is a Django" not in closed.get(path).text
        assert "Mirror of cloud" not in closed.get("/nothing").text


def test_every_address_is_documented() -> None:
    """The table in docs/pages.md and the routes have the same pages."""
    told = (Path(__file__).parent.parent / "docs/pages.md").read_text("utf-8")
    for pattern, _ in ROUTES:
        address = re.sub(r"\(.*|\^|\$|\\", "", pattern).rstrip("/") or "/"
        if address not in (datasette.LOGIN, "/-/mirror-assets", "/-/search/options"):
            assert f"`{address}" in told or f"`.{address.rpartition('.')[2]}`" in told, address


@pytest.mark.parametrize("sheet", ["mirror", "datasette"])
def test_text_has_the_size_that_the_browser_is_set_to(sheet: str) -> None:
    """No size of a font is in pixels."""
    text = (TEMPLATES.with_name("static") / f"{sheet}.css").read_text("utf-8")
    sizes = re.findall(r"[{;]\s*font(?:-size)?: ([^;}]+)", text)
    assert len(sizes) > 5
    assert not [size for size in sizes if "px" in size]


def test_growth_is_drawn_over_every_year(tmp_path: Path) -> None:
    """A year without new repositories is shown, so that growth does not look steady."""
    filled = FixtureDb(tmp_path / "mirror.db")
    years = ("2009", "2009", "2010", "2016", "2020")
    rows = [repository(f"a/{n}", created_at=f"{year}-05-01T00:00:00.000000Z") for n, year in enumerate(years)]
    filled.repositories(rows, first=True)
    filled.store.close()
    page = client_of(tmp_path / "mirror.db").get("/-/mirror-status").text
    (line,) = re.findall(r'class="line" d="M([^"]*)"', page)
    heights = [float(point.split(",")[1]) for point in line.split(" L")]
    assert len(heights) == datetime.now(UTC).year - 2009 + 1
    assert heights[0] == pytest.approx(120 * 3 / 5)
    assert heights[2] == heights[6]
    assert heights[-1] == 0
    assert "when they were created: 5 in all" in page


@pytest.mark.parametrize(
    ("number", "top"), [(0, "0 repositories"), (1, "1 repository"), (2, "2 repositories")]
)
def test_charts_and_cards_count_in_words_that_fit(tmp_path: Path, number: int, top: str) -> None:
    """None and one too."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository(f"a/{one}") for one in range(number)], first=True)
    filled.store.close()
    page = client_of(tmp_path / "mirror.db").get("/-/mirror-status").text
    assert re.findall(r'class="top"[^>]*>([^<]*)', page) == [top, top]
    assert f"<dt>{top.split()[1]}</dt>" in page


def test_every_chart_has_its_sql_one_click_away(mixed: tuple[AsgiClient, dict[str, str]]) -> None:
    """Each figure of the status links to a statement that Datasette can run, with its values."""
    served, tokens = mixed
    for _ in range(20):  # a busy machine has not always counted by then
        page = served.get("/-/mirror-status", headers=bearer(tokens["read"])).text
        figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
        if len(figures) >= 4:
            break
    assert len(figures) >= 4
    links = [*re.findall(r'href="([^"]*)">SQL of', page)]
    for figure in figures:
        (link,) = re.findall(r'<a href="(/mirror\?sql=[^"]*)">SQL', figure)
        links.append(link)
    for link in links:
        answer = served.get(link.replace("&amp;", "&"), headers=bearer(tokens["read"]))
        assert answer.status_code == 200
        assert "message-error" not in answer.text
