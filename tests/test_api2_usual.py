"""Repositories in the usual shape are read quickly, and give the same rows as those of any other shape."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from counting_teller import CountingTeller
from examples import examples
from fixtures_db import FixtureDb
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream_fakes import faked, page, recorded

from mirror.addresses import API, WEB
from mirror.api2_extras import difference, encoded
from mirror.api2_objects import repository_object
from mirror.api2_usual import RepositoryComparison, UsualRepository
from mirror.model import Repository
from mirror.upstream.cloud_decode import RepositoryJson, to_repository
from mirror.upstream.cloud_repositories import UsualRepositories
from mirror.upstream.protocol import RowDecoder

IDENTITY = "b8313f5b-2134-488d-9aca-830fb95206c5"
FULL_NAME = "gildas_cherruel/bb"


def told(**others: Any) -> Any:
    """A repository as Bitbucket sent it, with values at paths such as ``links__self``; `...` removes one."""
    row = recorded("cloud/told.json")[0]
    for path, value in others.items():
        *inner, place = path.split("__")
        of = row
        for key in inner:
            of = of[key]
        if value is ...:
            del of[place]
        else:
            of[place] = value
    return row


PARENT = {
    "type": "repository", "full_name": "ann/bb", "name": "bb", "uuid": "{9}",
    "links": {"self": {"href": "https://api.bitbucket.org/2.0/repositories/ann/bb"},
              "avatar": {"href": "https://bytebucket.org/ravatar/%7B9%7D?ts=go"}},
}  # fmt: skip
FORK = told(parent=PARENT, scm="hg", mainbranch={"type": "named_branch", "name": "default"})
LINKED = [
    told(links__clone=[], links__hooks=..., links__avatar__href=f"https://bitbucket.org/{FULL_NAME}/avatar"),
    told(links__future={FULL_NAME: [IDENTITY, f"https://bitbucket.org/{FULL_NAME}", 1, None]}),
    told(links__x={"href": f"https://{FULL_NAME}/x"}, links__y={"href": "https://bitbucket.org/2.0/x/y"}),
    told(links__self__href=f"https://bitbucket.org/!api/2.0/repositories/{FULL_NAME}", links__html=None),
]  # fmt: skip
USUAL = [
    told(),
    told(full_name=...),
    told(slug=..., workspace=..., project=..., parent=..., override_settings=..., is_private=...),
    told(owner=..., links=..., mainbranch=..., type="repository", description='Schließen \u2028 "it" \\'),
    told(links__issues=..., has_issues=False, project=None, mainbranch=None, size=None, language=None),
    told(has_issues=None, mainbranch={}, workspace=None, is_private=None, name="", slug=None),
    told(created_on="2023-11-02T09:27:57+00:00", updated_on="yesterday", followers_count=3, forks_count=0),
    FORK,
    told(parent={}, enforced_signed_commits=True, override_settings=None, mainbranch={"name": "x", "y": 1}),
    told(uuid=f"{{{IDENTITY.upper()}}}", size=-1, website="https://a@b.org/", fork_policy=None),
    *LINKED,
    told(owner__future={"href": "https://x@bitbucket.org/y"}, project__links={}, workspace__slug="other"),
]  # fmt: skip
ODD = [
    told(future=1),
    told(type="repo"),
    told(type=...),
    told(size=1.5),
    told(followers_count=None),
    told(followers_count=1e30),
    told(uuid=...),
    told(uuid="{9}"),
    told(uuid=None, links=...),
    told(uuid="nothing"),
    told(full_name="a b/c"),
    told(links=[]),
    told(links__avatar=["x"]),
    told(links__self__href="https://bitbucket.org/~x"),
    told(links__self__href='"'),
    told(owner=1),
    told(mainbranch="x"),
    told(has_wiki=1),
]


class Ways:
    """The two ways to read repositories, as an upstream reads them."""

    def __init__(self) -> None:
        self.upstream: Any = faked().upstream
        self._general = RowDecoder(RepositoryJson, to_repository)

    def usual(self, text: str) -> Repository | None:
        """Read one in the usual shape."""
        row: Repository | None = self.upstream._usual_repository(msgspec.Raw(text.encode()))
        return row

    def general(self, text: str) -> Repository | None:
        """Read one in the general way; None for a bad row."""
        raws = [msgspec.Raw(text.encode())]
        rows, _ = self._general.decode(raws, self.upstream._with_told, redact=str)
        return rows[0] if rows else None


def check_same(text: str, quick: Repository, general: Repository | None) -> None:
    """Compare columns and extras."""
    assert general is not None
    assert quick == general
    assert quick.told is not None
    assert general.told is not None
    assert isinstance(quick.told.value, UsualRepository)
    assert quick.told.anonymous == general.told.anonymous
    ours = repository_object(general, general.owner, API, WEB)
    expected = encoded(difference(general.told.value, ours))
    compared = RepositoryComparison(quick.owner)
    assert compared.extra_of(quick.told.value, quick) == expected, text
    assert compared.extra_of(quick.told.value, quick) == expected  # from its memory


@pytest.mark.parametrize("compact", [True, False])
def test_usual_repositories_have_the_same_columns_and_extras(*, compact: bool) -> None:
    """The fast way gives what comparing each key gives."""
    ways = Ways()
    for row in USUAL:
        text = json.dumps(row, separators=(",", ":") if compact else None)
        found = ways.usual(text)
        assert found is not None, row
        check_same(text, found, ways.general(text))


@pytest.mark.parametrize("row", ODD)
def test_a_repository_of_another_shape_is_read_in_the_general_way(row: Any) -> None:
    """With all others of its page, so that each is decoded on its own."""
    assert Ways().usual(json.dumps(row)) is None
    found = faked(page(USUAL[0], row)).upstream.fetch_repositories("w", "created", None)
    assert len(found.rows) + len(found.bad) == 2
    assert found.rows[0].told is not None
    assert isinstance(found.rows[0].told.value, UsualRepository)


ODDLY_NAMED = (
    "2.0/r", "api/2.0", "!api/2.0", "s/s", "refs/tags", "v%20/r", "bitbucket.org/2.0",
    "org/org", "g/x", "0/x", "~/r",
)  # fmt: skip
"""Of whose links no part is surely the name, or where an address of the API begins."""


def test_links_are_learned_from_other_repositories() -> None:
    """Whatever they are called: a name may look like a part of the addresses, or like the path of the API."""
    ways = Ways()
    names = (
        "o/r",
        "repositories/o",
        "a/a",
        "s/p",
        "o/r.git",
        IDENTITY + "/x",
        "x/bitbucket.org",
        *ODDLY_NAMED,
        "o/r",
    )
    for row in (USUAL[0], *LINKED):
        for name in names:
            text = json.dumps(row).replace(FULL_NAME, name).replace('"slug": "bb"', '"slug": "r"')
            found = ways.usual(text)
            assert (found is None) == (name in ODDLY_NAMED), name
            if found is not None:
                check_same(text, found, ways.general(text))


def paths(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place within a value, as its container and its key."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(places):
        yield value, key
        yield from paths(inner)


VALUES: tuple[Any, ...] = (
    None, True, 0, 1.0, "", "x", "é", "\\", "~", FULL_NAME, IDENTITY, f"{{{IDENTITY}}}", [], {},
    {"href": "https://a@b.c/"}, f"https://bitbucket.org/{FULL_NAME}", "https://api.bitbucket.org/2.0/x",
    "2020-01-01T00:00:00+00:00",
)  # fmt: skip
EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(VALUES)), max_size=4)


@settings(max_examples=examples(150))
@given(first=st.sampled_from(USUAL), edits=EDITS)
def test_whatever_is_changed_gives_the_same(first: Any, edits: list[tuple[int, Any]]) -> None:
    """Values of any kind at any place, after a repository of the usual shape."""
    ways, row = Ways(), json.loads(json.dumps(first))
    ways.usual(json.dumps(told()))
    for number, value in edits:
        places = list(paths(row))
        container, key = places[number % len(places)]
        container[key] = json.loads(json.dumps(value))
    text = json.dumps(row)
    if (found := ways.usual(text)) is not None:
        check_same(text, found, ways.general(text))


def test_both_ways_write_the_same_rows(tmp_path: Path) -> None:
    """All tables of a page, with owners, projects, accounts; also where another row makes one private."""
    ways, texts = Ways(), list[str]()
    for number, row in enumerate(USUAL):
        identity = f"{IDENTITY[:-2]}{number:02}"
        texts.append(json.dumps(row).replace(FULL_NAME, f"{FULL_NAME}{number}").replace(IDENTITY, identity))
    texts += [texts[0].replace('"is_private": false', '"is_private": true'), texts[0]]
    dumps = [list(dump(tmp_path / f"{read.__name__}.db", texts, read)) for read in (ways.usual, ways.general)]
    assert dumps[0] == dumps[1]
    assert sum('INTO "extras"' in line for line in dumps[0]) > len(USUAL)


def dump(path: Path, texts: list[str], read: Callable[[str], Repository | None]) -> Iterator[str]:
    """Save repositories as they are read, and yield the statements of the whole file."""
    filled = FixtureDb(path)
    filled.repositories([row for row in map(read, texts) if row], first=True)
    yield from filled.store.connection.iterdump()
    filled.store.close()


def test_each_text_of_usual_repositories_is_decoded_once() -> None:
    """Of a hundred of one owner: account, workspace, project, settings, links, two main branches; parents."""
    tell = CountingTeller()
    read, forks = UsualRepositories(tell).read, 0
    for number in range(100):
        row = FORK if number % 10 == 0 else USUAL[0]
        text = (
            json.dumps(row).replace(FULL_NAME, f"{FULL_NAME}{number}").replace(IDENTITY[:6], f"{number:06}")
        )
        forks += row is FORK
        assert read(msgspec.Raw(text.encode())) is not None
        assert tell.decoded <= 7 + forks
    assert tell.decoded == 7 + forks
