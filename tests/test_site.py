"""The static site: its content, working links, and that a run writes only changes."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from cli_runner import Folder
from fixtures_db import LATER, PUBLIC, SECRETS, FixtureDb, fill_public, hg_ref, owner, repository
from hostile_texts import SCRIPT, TEXTS, fill_hostile, strict_html
from test_publish_proof import CANARY, plant
from twin_mirrors import Twin, empty_mirror

from mirror.errors import ConfigError, StoreError, StoreLocked
from mirror.site.build import MadeSite, SiteOptions, make_site
from mirror.site.folder import MANIFEST, PROGRESS, file_name, open_folder
from mirror.site.pages import MOST_URLS, sitemaps

OPTIONS = SiteOptions()
PISTON = "r/je/jespern/django-piston.html"


def made(mirror: Path, folder: Path, options: SiteOptions = OPTIONS) -> MadeSite:
    return make_site(mirror, folder, options)


def contents(folder: Path) -> dict[str, bytes]:
    """Map each file to its bytes, unpacked."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return {name: gzip.decompress(body) if name.endswith(".gz") else body for name, body in found.items()}


def links_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each link to this site with its file, except those of 404.html, which can be anywhere."""
    for path in folder.rglob("*.html"):
        for link in re.findall(r'(?:href|src|action)="([^"]*)"', path.read_text("utf-8")):
            parts = urlsplit(link)
            if not parts.scheme and parts.path and path.name != "404.html":
                yield path.relative_to(folder).as_posix(), unquote(parts.path)


def check_links(folder: Path) -> None:
    for source, link in set(links_in(folder)):
        assert not link.startswith("/"), (source, link)
        target = (folder / source).parent / link
        assert target.resolve().is_relative_to(folder.resolve()), (source, link)
        assert target.is_file(), (source, link)


@pytest.fixture(scope="module")
def public_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of public repositories, which no test changes."""
    folder = tmp_path_factory.mktemp("site")
    fill_public(folder / "mirror.db").store.close()
    made(
        folder / "mirror.db",
        folder / "www",
        SiteOptions(base_url="https://code.example/a", title="Old <code>"),
    )
    return folder / "www"


def test_a_site_has_a_page_of_everything(public_site: Path) -> None:
    """Each repository and owner, with links to them; every link leads to a file."""
    found = contents(public_site)
    assert {"index.html", "search.html", "changes.html", "404.html", "feed.xml", "robots.txt"} <= found.keys()
    assert {"sitemap.xml", "owners/index.html", "u/je/jespern.html", PISTON} <= found.keys()
    assert b"Piston is a Django" in found[PISTON]
    assert b"Old &lt;code&gt;" in found["index.html"]
    check_links(public_site)


def test_everything_is_reached_by_links(public_site: Path) -> None:
    """From the home page, without script."""
    reached, waiting, links = set[str](), ["index.html"], list(links_in(public_site))
    while waiting:
        page = waiting.pop()
        reached.add(page)
        found = (link for source, link in links if source == page)
        leads = {os.path.normpath(Path(page).parent / link) for link in found}
        waiting += sorted(leads - reached - set(waiting))
    pages = {path.relative_to(public_site).as_posix() for path in public_site.rglob("*.html")}
    assert pages - reached == {"404.html"}


def test_the_feed_and_the_sitemap_have_whole_addresses(public_site: Path) -> None:
    """The feed and the sitemap have whole addresses; 404.html links home from any depth."""
    found = contents(public_site)
    listed = re.findall(r"<loc>(.*?)</loc>", found["sitemap.xml"].decode())
    pages = [name for name in found if name.endswith(".html") and name != "404.html"]
    assert sorted(listed) == sorted(f"https://code.example/a/{name}" for name in pages)
    assert b"Sitemap: https://code.example/a/sitemap.xml" in found["robots.txt"]
    links = re.findall(r"<link ([^>]*)>", found["feed.xml"].decode())
    addresses = [re.sub(r'.*href="([^"]*)".*', r"\1", link) for link in links if "related" not in link]
    assert addresses
    assert all(one.startswith("https://code.example/a/") for one in addresses)
    assert b'href="/a/index.html"' in found["404.html"]


def test_many_pages_have_many_sitemaps() -> None:
    """A sitemap has at most the protocol's number of addresses."""
    found = dict(sitemaps("https://code.example/", [f"{n}.html" for n in range(MOST_URLS + 1)]))
    assert found["sitemap.xml"].count("<sitemap>") == 2
    assert found["sitemap-2.xml"].count("<url>") == 1


def test_private_rows_do_not_reach_a_site(mixed_db: FixtureDb, tmp_path: Path) -> None:
    """No canary of any table is in any file."""
    mixed_db.store.save_upstream("inside", "datacenter", "https://inside.example")
    mixed_db.store.close()
    assert plant(mixed_db.path) > 200
    done = made(mixed_db.path, tmp_path / "www")
    assert done.repositories == 7
    assert done.inside_hosts == []
    secrets = [secret.lower() for secret in (*SECRETS, CANARY.encode(), b"inside.example")]
    for name, body in contents(tmp_path / "www").items():
        assert not [one for one in secrets if one in body.lower() or one in name.lower().encode()], name


def test_mirrors_that_differ_in_private_rows_make_the_same_site(tmp_path: Path) -> None:
    """A site depends only on public rows."""
    empty = empty_mirror(tmp_path / "empty.db")
    sites = []
    for number, seed in enumerate((None, 1, 2)):
        Twin(path := tmp_path / f"{number}.db", empty, 5, seed)
        made(path, tmp_path / f"www{number}")
        sites.append(contents(tmp_path / f"www{number}"))
    assert sites[0] == sites[1] == sites[2]
    assert len(sites[0]) > 10


def test_hostile_names_have_safe_files_and_run_nothing(tmp_path: Path) -> None:
    """Every name has a page with a safe file name; the HTML is valid, and no text runs."""
    fill_hostile(tmp_path / "mirror.db", SCRIPT)
    filled = FixtureDb(tmp_path / "mirror.db")
    for text in TEXTS:
        by = owner(text, uuid=f"{{by {text}}}", display_name=text)
        told = {"name": text, "description": text, "website": text, "language": text, "uuid": f"{{{text}}}"}
        filled.repositories([repository(f"{text}/{text}", by, **told)], first=True)
        ref = {"target_message": text, "target_author": text}
        filled.refs(f"{text}/{text}", [hg_ref("branch", text, "1", **ref), hg_ref("tag", text, "2", **ref)])
    filled.store.close()
    site = tmp_path / "www"
    done = made(filled.path, site)
    assert done.repositories == len(list((site / "r").rglob("*.html"))) > len(TEXTS)
    check_links(site)
    for path in site.rglob("*"):
        assert re.fullmatch(r"[a-z0-9._~-]+", path.name)
        assert len(path.name) < 120
    for path in site.rglob("*.html"):
        html = path.read_text("utf-8")
        for element in strict_html(html).iter():
            assert element.tag not in ("img", "iframe", "object", "style")
            assert element.tag != "script" or re.match(r"(?:\.\./|/)*assets/", element.get("src", ""))
            assert not element.get("href", "").lower().startswith(("javascript:", "data:"))
        assert SCRIPT not in html


def test_names_that_some_file_systems_confuse(tmp_path: Path) -> None:
    """Case, characters, device names, dots, length, and one name on two upstreams: separate files."""
    names = [
        "foo",
        "Foo",
        "FOO",
        "con",
        "nul.txt",
        "aux.html",
        "a.",
        ".a",
        "..",
        "-",
        "",
        "_a",
        "a b",
        "a~b",
        "\u00e9",
        "e\u0301",
    ]
    names += ["x" * 90, "x" * 91, "foo~p2", file_name("Foo")]
    files = [file_name(name) for name in names]
    assert len({one.lower() for one in files}) == len(names)
    assert all(
        re.fullmatch(r"[a-z0-9._~-]{1,100}", one) and one[0] != "." and one[-1] != "." for one in files
    )
    assert file_name("con") != "con"
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories(
        [
            repository(f"{name}/{name}", owner(name, uuid=f"{{o{n}}}"), uuid=f"{{{n}}}")
            for n, name in enumerate(("Foo", "foo", "con"))
        ]
    )
    filled.upstream_id = filled.store.save_upstream("other", "cloud", "https://other.example/2.0")
    filled.repositories(
        [repository("foo/foo", owner("foo", uuid="{else}"), uuid="{else}", description="the other")]
    )
    filled.store.close()
    done = made(filled.path, tmp_path / "www")
    pages = list((tmp_path / "www/r").rglob("*.html"))
    assert (done.repositories, len(pages)) == (4, 4)
    assert len({str(path).lower() for path in pages}) == 4
    assert len(list((tmp_path / "www/u").rglob("*.html"))) == 4
    check_links(tmp_path / "www")


def moments(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_a_second_run_writes_what_changed(public_db: FixtureDb, tmp_path: Path) -> None:
    """Other pages stay, also after a full listing; gone repositories lose their page."""
    site = tmp_path / "www"
    public_db.repositories([repository("aa/stays"), repository("bb/goes")])
    first = made(public_db.path, site)
    before = moments(site)
    assert made(public_db.path, site).written == 0
    assert moments(site) == before
    (site / "CNAME").write_text("code.example\n")
    public_db.repositories([repository("aa/stays"), repository("cc/new")], at=LATER)
    public_db.store.connection.execute(
        "UPDATE repositories SET deleted_at = ? WHERE full_name = 'bb/goes'", (LATER,)
    )
    done = made(public_db.path, site)
    after = moments(site)
    assert "r/bb/bb/goes.html" in before.keys() - after.keys()
    assert not (site / "r/bb").exists()
    assert "r/cc/cc/new.html" in after
    assert {"r/aa/aa/stays.html", PISTON, "u/aa/aa.html"} <= {
        name for name in after if before.get(name) == after[name]
    }
    assert (done.removed, done.repositories) == (2, first.repositories)
    assert (site / "CNAME").exists()
    check_links(site)


def test_a_run_repairs_what_another_left(public_path: Path, tmp_path: Path) -> None:
    """After a kill: missing, half-written and unlisted files, or no manifest yet."""
    site = tmp_path / "www"
    made(public_path, site)
    whole = contents(site)
    (site / PISTON).unlink()
    (site / "changes.html").write_text("half")
    (site / "r/je/jespern/stray.html").write_text("of no manifest")
    (site / "u/left.html.part").write_text("half")
    (site / "index.html.part").write_text("half")
    made(public_path, site)
    assert contents(site) == whole


@pytest.mark.parametrize(
    "damage", ["same size", "gone", "linked", "torn list", "list of an earlier version", "no list"]
)
def test_a_run_trusts_no_file_that_it_did_not_write(public_path: Path, tmp_path: Path, damage: str) -> None:
    """An edited page is rendered again; without a usable list, all pages are."""
    site = tmp_path / "www"
    made(public_path, site)
    whole, page, listed = contents(site), site / PISTON, site / MANIFEST
    if damage == "same size":
        page.write_text(page.read_text().replace("Piston", "Pistol"))
    elif damage == "gone":
        page.unlink()
    elif damage == "linked":
        page.unlink()
        page.symlink_to(tmp_path / "elsewhere")
    elif damage == "torn list":
        listed.write_bytes(listed.read_bytes()[:500])
    elif damage == "no list":
        listed.unlink()
        (site / PROGRESS).write_bytes(whole[MANIFEST][:9])
    else:
        files = {name: ["0" * 32, len(body)] for name, body in whole.items()}
        listed.write_text(json.dumps({"files": {**files, "../mirror.db": ["0", 1]}}))
    done = made(public_path, site)
    assert contents(site) == whole
    assert done.written == (damage in ("same size", "gone", "linked"))
    assert public_path.exists()


def test_options_change_what_shows_them(public_path: Path, tmp_path: Path) -> None:
    """A title is on every page; an address is in the feed, the sitemap and 404.html."""
    site, base = tmp_path / "www", "https://code.example/a/"
    first = made(public_path, site)
    assert made(public_path, site, SiteOptions(base_url=base)).written == 4
    assert f'href="{base}' in (site / "feed.xml").read_text()
    again = made(public_path, site, SiteOptions(title="Ours"))
    assert "<title>jespern/django-piston · Ours</title>" in (site / PISTON).read_text()
    assert first.files > again.written > first.files - 20
    assert not (site / "sitemap.xml").exists()


def check_reachable(folder: Path) -> None:
    """Check that the targets of links and of the search exist."""
    waiting, reached = ["index.html"], set[str]()
    names = json.loads((folder / "search/names.js").read_text().partition(" = ")[2].rstrip(";\n"))["rows"]
    for row in names:
        by = row[0].partition("/")[0]
        waiting.append(row[4] if len(row) > 4 and row[4] else f"r/{by[:2]}/{row[0]}.html")
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            assert (folder / page).is_file(), page
            found = re.findall(r'(?:href|src)="([^":?#]+)"', (folder / page).read_text("utf-8"))
            waiting += [os.path.normpath(Path(page).parent / unquote(link)) for link in found]


def test_a_run_that_ends_anywhere_leaves_a_whole_site(public_db: FixtureDb, tmp_path: Path) -> None:
    """Every link leads to an old or new page, whichever file could not be written; the next run continues."""
    old, new = tmp_path / "old", tmp_path / "new"
    made(public_db.path, old)
    forks = repository("zz/fork", parent_uuid=PUBLIC[1].uuid, parent_full_name=PUBLIC[1].full_name)
    public_db.repositories([repository("zz/new", description="\u00e9"), forks], at=LATER)
    public_db.store.connection.execute(
        "UPDATE repositories SET deleted_at = ? WHERE slug = 'web.site'", (LATER,)
    )
    made(public_db.path, new)
    before, after = contents(old), contents(new)
    changed = sorted(name for name in after if before.get(name) != after[name])
    assert len(changed) > 10
    for name in changed[::2]:
        site = tmp_path / "www"
        shutil.copytree(old, site)
        blocked = site / f"{name}.part"
        blocked.mkdir(parents=True)
        with pytest.raises(StoreError, match="directory"):
            made(public_db.path, site)
        check_reachable(site)
        blocked.rmdir()
        made(public_db.path, site)
        assert contents(site) == after
        shutil.rmtree(site)


def test_a_feed_calls_a_change_the_same_for_ever(public_db: FixtureDb, tmp_path: Path) -> None:
    """Also if earlier changes are no longer public, so that numbers shift."""

    def entries(name: str) -> dict[str, str]:
        made(public_db.path, tmp_path / name)
        found = re.findall(
            r"<title>(.*?)</title>.*?<id>(.*?)</id>", (tmp_path / name / "feed.xml").read_text()
        )
        return dict(found[1:])

    gone, stays = repository("aa/gone"), repository("bb/stays")
    public_db.repositories([gone, stays])
    public_db.repositories(
        [repository("aa/gone", description="1"), repository("bb/stays", description="2")], at=LATER
    )
    before = entries("one")
    public_db.store.connection.execute("UPDATE repositories SET deleted_at = ? WHERE slug = 'gone'", (LATER,))
    after = entries("two")
    assert after
    assert {title: before[title] for title in after} == after
    assert len({*before.values()}) == len(before) > len(after)


def test_a_web_server_can_read_a_site_whatever_the_umask(public_path: Path, tmp_path: Path) -> None:
    """A service runs with an umask that keeps others out, such as that of contrib's unit."""
    before = os.umask(0o077)
    try:
        made(public_path, tmp_path / "srv/www")
    finally:
        os.umask(before)
    modes = {
        (path.is_dir(), path.stat().st_mode & 0o777)
        for path in (tmp_path / "srv", *tmp_path.rglob("srv/**/*"))
    }
    assert modes == {(True, 0o755), (False, 0o644)}


def test_two_runs_do_not_share_a_folder(public_path: Path, tmp_path: Path) -> None:
    """The second one is refused and changes nothing."""
    with open_folder(tmp_path / "www"), pytest.raises(StoreLocked, match="another process is making a site"):
        made(public_path, tmp_path / "www")
    assert [path.name for path in (tmp_path / "www").rglob("*") if path.is_file()] == [PROGRESS]


def test_a_folder_of_other_files_is_refused(public_path: Path, tmp_path: Path) -> None:
    """No other file is removed or replaced."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www/index.html").write_text("mine")
    with pytest.raises(ConfigError, match="has other files"):
        made(public_path, tmp_path / "www")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="not a folder"):
        made(public_path, tmp_path / "file")
    for own in ("mirror.db.lock", "mirror.db-wal", "mirror.db.exporting/www"):
        with pytest.raises(ConfigError, match="a file of it; give another name"):
            made(public_path, tmp_path / own)
        assert not (tmp_path / own).is_dir()
    with pytest.raises(StoreError, match="no mirror there yet"):
        made(tmp_path / "none.db", tmp_path / "else")
    assert [path.name for path in (tmp_path / "www").iterdir()] == ["index.html"]
    assert not (tmp_path / "else").exists()


@pytest.mark.parametrize(
    "url", ["code.example", "ftp://code.example/", "https://", "https://a.example/?q", "https://[a/"]
)
def test_wrong_addresses_are_refused(public_path: Path, tmp_path: Path, url: str) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigError, match="not the address of a site"):
        made(public_path, tmp_path / "www", SiteOptions(base_url=url))
    assert not (tmp_path / "www").exists()


def test_the_command_prints_what_it_made(folder: Folder) -> None:
    """It prints what it made, and refuses other folders with exit code 2."""
    fill_public(folder.path / "mirror.db").store.close()
    (folder.path / "mirror.toml").write_text('database = "mirror.db"\n')
    done = folder.run("site", "www", "--title", "Ours", "--json")
    assert done.code == 0
    assert json.loads(done.out)["removed"] == 0
    assert "<title>Ours</title>" in (folder.path / "www/index.html").read_text()
    refused = folder.run("site", ".")
    assert (refused.code, refused.out) == (2, "")
    assert "has other files" in refused.err


def test_the_command_counts_one_owner_as_one(folder: Folder) -> None:
    """In words that agree with the number."""
    filled = FixtureDb(folder.path / "mirror.db")
    filled.repositories([repository("only/one")])
    filled.store.close()
    (folder.path / "mirror.toml").write_text('database = "mirror.db"\n')
    assert folder.run("site", "www").out.startswith("www: 1 repository of 1 owner in ")


def test_an_owner_of_many_repositories_has_pages(tmp_path: Path) -> None:
    """Each repository is on one of them."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository(f"big/r{number}") for number in range(205)])
    filled.store.close()
    made(filled.path, tmp_path / "www")
    pages = sorted((tmp_path / "www/u/bi").iterdir())
    assert [page.name for page in pages] == ["big.html", "big~p2.html", "big~p3.html"]
    listed = {link for page in pages for link in re.findall(r"r/bi/big/(r\d+)\.html", page.read_text())}
    assert len(listed) == 205
    check_links(tmp_path / "www")
