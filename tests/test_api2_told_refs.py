"""Refs as API 2.0 sent them: the usual shape is read quickly, any other in the general way."""

import json
from itertools import product
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from counting_teller import CountingTeller
from upstream_fakes import faked, page

from mirror.addresses import API, WEB
from mirror.api2_extras import difference
from mirror.api2_objects import ref_object
from mirror.api2_usual import RefComparison
from mirror.model import RepositoryKey
from mirror.upstream.cloud_decode import RefJson, to_ref
from mirror.upstream.cloud_refs import UsualRefs
from mirror.upstream.protocol import RowDecoder

IN_API = "https://api.bitbucket.org/2.0/repositories/o/r"
IN_WEB = "https://bitbucket.org/o/r"
IN_ALIAS = "https://bitbucket.org/!api/2.0/repositories/o/r"


def commit(name: str) -> Any:
    """A commit of which only the hash is known."""
    links = {"self": {"href": f"{IN_API}/commit/{name}"}, "html": {"href": f"{IN_WEB}/commits/{name}"}}
    return {"type": "commit", "hash": name, "links": links}


def usual_ref(kind: str, **others: Any) -> Any:
    """A ref as Bitbucket sends it, with an author who has an account, and two parents."""
    here, page = IN_API, IN_WEB
    user = {
        "type": "user", "display_name": "Ada", "uuid": "{a-1}", "nickname": "ada", "account_id": "557058:a",
        "links": {"self": {"href": "https://api.bitbucket.org/2.0/users/%7Ba-1%7D"},
                  "html": {"href": "https://bitbucket.org/%7Ba-1%7D/"}},
    }  # fmt: skip
    links = {
        "html": {"href": f"{page}/{'commits/tag' if kind == 'tag' else 'branch'}/v%20%C3%A9"},
        "self": {"href": f"{here}/refs/{'tags' if kind == 'tag' else 'branches'}/v%20%C3%A9"},
        "commits": {"href": f"{here}/commits/v%20%C3%A9"},
    }
    target = commit("a" * 40)
    target |= {
        "date": "2026-11-01T10:00:00+00:00", "message": "Schließen \u2028 it",
        "parents": [commit("b" * 40), commit("c" * 40)],
        "author": {"type": "author", "raw": "Ada <ada@example.com>", "user": user},
        "repository": {"type": "repository", "uuid": "{r-1}", "full_name": "o/r", "name": "r",
                       "links": {"self": {"href": here}, "html": {"href": page}}},
    }  # fmt: skip
    row = {"name": "v é", "type": kind, "target": target, "links": links}
    for path, value in others.items():
        place, *inner = path.split("__")
        of = row
        for key in inner:
            of, place = of[place], key
        of[place] = value
    return row


BRANCH = {
    "default_merge_strategy": "merge_commit",
    "merge_strategies": ["merge_commit", "squash", "fast_forward"],
}
USUAL = [
    usual_ref("branch", **BRANCH),
    usual_ref("branch"),
    usual_ref("branch", default_merge_strategy="squash", merge_strategies=[]),
    usual_ref("named_branch", heads=[], **BRANCH),
    usual_ref("named_branch", heads=[commit("d" * 40)], **BRANCH),
    usual_ref("tag", message=None, date=None, tagger=None),
    usual_ref(
        "tag",
        message="m",
        date="2026-11-01T10:00:00.500000+00:00",
        tagger={"type": "author", "raw": "T <t@example.com>"},
    ),
    usual_ref("tag", tagger={"type": "author", "raw": "T", "user": {"type": "app_user"}}),
    usual_ref("tag", message="m", target__date=None, target__message=None, target__author=None),
    usual_ref("tag", target__author={"raw": "Nobody"}, target__parents=[]),
    usual_ref("branch", target__author={"type": "author", "user": {"nickname": "n", "future": [1]}}),
    usual_ref("branch", target__repository={"type": "repository", "full_name": "o/r", "future": 1}),
    usual_ref("branch", target__links__self={"href": f"{IN_ALIAS}/commit/{'a' * 40}"}),
]  # fmt: skip
NAMES = ("o/r", "o/renamed")


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("full_name", NAMES)
def test_refs_in_the_usual_shape_have_the_same_columns_and_extras(full_name: str, *, compact: bool) -> None:
    """The fast way gives what comparing each key gives."""
    upstream: Any = faked().upstream
    repository = SimpleNamespace(
        full_name=full_name, uuid="{r-1}", name="r", avatar_url="https://x.org/a.png"
    )
    quick = RefComparison(repository)
    for row in USUAL:
        raw = msgspec.Raw(json.dumps(row, separators=(",", ":") if compact else None).encode())
        found = upstream._usual_ref(raw)
        ((expected,), bad) = RowDecoder(RefJson, to_ref).decode([raw], upstream._with_told, redact=str)
        assert not bad
        assert found == expected
        assert found.told is not None
        assert expected.told is not None
        ours = ref_object(repository, expected, API, WEB)
        assert quick.extra_of(found.told.value, found) == difference(expected.told.value, ours)
        assert found.told.anonymous == expected.told.anonymous


def test_links_are_learned_from_other_repositories() -> None:
    """Whatever they are called, and whatever their links look like; each name is asked for twice."""
    upstream: Any = faked().upstream
    names = ["o/r", "o/s", "commits/refs", "2.0/r", "a/a", "o/r", "2.0/r", "v%20%C3%A9/r"]
    for name, row in product(names, [USUAL[0], USUAL[6]]):
        text = json.dumps(row).replace("o/r", name)
        raw = msgspec.Raw(text.encode())
        found = upstream._usual_ref(raw)
        ((expected,), _) = RowDecoder(RefJson, to_ref).decode([raw], upstream._with_told, redact=str)
        # Behind the path of the API, no page is told from an address of the API.
        assert (found is None) == (name in ("2.0/r", "v%20%C3%A9/r"))
        if found is not None:
            assert found == expected
            assert expected.told is not None
            repository = SimpleNamespace(full_name=name, uuid="{r-1}", name="r", avatar_url=None)
            ours = ref_object(repository, expected, API, WEB)
            extra = RefComparison(repository).extra_of(found.told.value, found)
            assert extra == difference(expected.told.value, ours)
        other = text.replace("/commits/v", "/commits/w")
        assert upstream._usual_ref(msgspec.Raw(other.encode())) is None


def test_each_text_of_usual_refs_is_decoded_once() -> None:
    """Of a repository with 200 refs: itself, an author, a tagger, and the links of a commit, a branch, a tag.

    Of the next repository with the same author only itself, since its links look like those of the first.
    """
    tell = CountingTeller()
    read = UsualRefs(tell).read
    for name, decoded in (("o/r", 6), ("o/s", 7), ("o/r", 7)):
        for number in range(100):
            for row in (USUAL[0], USUAL[7]):
                text = json.dumps(row).replace("o/r", name).replace("a" * 40, f"{number:040}")
                text = text.replace("v%20%C3%A9", f"v{number}").replace('"v \\u00e9"', f'"v{number}"')
                assert read(msgspec.Raw(text.encode())) is not None
        assert tell.decoded == decoded


ODD = [
    usual_ref("branch", future=1),
    usual_ref("bookmark"),
    usual_ref("branch", target__hash=""),
    usual_ref("branch", target__future=1),
    usual_ref("branch", target__parents=[{"hash": "b" * 40}]),
    usual_ref("branch", target__author="Ada"),
    usual_ref("branch", target__author={"raw": 1}),
    usual_ref("branch", target__repository=[]),
    usual_ref("tag", tagger="Ada"),
    usual_ref("branch", links={"self": {"href": "https://me:secret@bitbucket.org/o/r"}}),
    usual_ref("branch", links={"self": "x"}),
    usual_ref("branch", target__links={}, links={"self": {"href": "https://bitbucket.org/x", "x": "y"}}),
    usual_ref("branch", target__links=commit("b" * 40)["links"]),
    usual_ref("branch", target__links__diff={"href": f"{IN_API}/diff/{'a' * 40}"}),
    usual_ref("branch", target__hash='a"b', target__links=commit('a"b')["links"]),
    usual_ref("branch", name="w"),
    usual_ref("branch", target__repository=None),
    usual_ref("branch", target__repository={"type": "repository", "full_name": "o/other"}),
    usual_ref("branch", heads=[], message=None, date="2026-11-01T10:00:00.123456+00:00"),
    usual_ref("named_branch"),
    usual_ref("named_branch", heads=[{"type": "commit", "hash": "d" * 40, "links": {}}], **BRANCH),
    usual_ref("tag", message="m", date="yesterday"),
    usual_ref("tag", target__date="1 May"),
    usual_ref("tag", heads=[]),
    usual_ref("tag", **BRANCH),
]


@pytest.mark.parametrize("row", ODD)
def test_a_ref_of_another_shape_is_read_in_the_general_way(row: Any) -> None:
    """With all others of its page, so that each is decoded on its own."""
    upstream: Any = faked(page(USUAL[0], row)).upstream
    raws = [msgspec.Raw(json.dumps(one).encode()) for one in (USUAL[0], row)]
    assert [upstream._usual_ref(raw) is None for raw in raws] == [False, True]
    found = upstream.fetch_refs(RepositoryKey(uuid="", full_name="o/r"), None)
    assert 1 <= len(found.rows) <= 2
    assert len(found.rows) + len(found.bad) == 2
    assert "secret" not in str([ref.told and ref.told.value for ref in found.rows])
