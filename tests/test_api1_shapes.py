"""API 1.0's objects: pure shaping, held key by key and type by type to recorded answers."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import JESPERN, LATER, PISTON, PISTON_REFS, fill_public, hg_ref, owner
from hypothesis import given
from hypothesis import strategies as st

from mirror.queries.rows import AccountRow, RefRow
from mirror.serve.api1 import shapes
from mirror.serve.api1.shapes import local, local_millis, utc
from mirror.times import to_text

RECORDED = Path(__file__).resolve().parent.parent.parent / "shared/recorded/v1"
SPRING = "cyprianno-spring-social-bitbucket"
COMPOSER = "composer-composer/GitBitbucketDriverTest.php"

WHOLE = {
    "scm": "git", "has_wiki": True, "last_updated": "2016-05-17T13:20:21.993", "no_forks": True,
    "creator": None, "forks_count": 0, "created_on": "2015-02-18T16:22:24.688", "owner": "user",
    "logo": "https://example.com/logo.png", "email_mailinglist": "", "is_mq": False, "size": 9975494,
    "read_only": False, "fork_of": None, "mq_of": None, "followers_count": 0, "state": "available",
    "utc_created_on": "2015-02-18 15:22:24+00:00", "website": "", "description": "", "has_issues": False,
    "is_fork": False, "slug": "repo", "is_private": True, "name": "repo", "language": "php",
    "utc_last_updated": "2016-05-17 11:20:21+00:00", "email_writers": True, "main_branch": "master",
    "no_public_forks": True, "resource_uri": "/1.0/repositories/user/repo",
}  # fmt: skip
PERSON = {
    "username": "ericbottard", "first_name": "Eric", "last_name": "Bottard", "is_team": False,
    "display_name": "Eric Bottard", "is_staff": False, "avatar": "https://example.com/a.png",
    "resource_uri": "/1.0/users/ericbottard",
}  # fmt: skip
CHANGESET = {
    "node": "937992d19d72", "files": [], "raw_author": "User <local@domain.tld>",
    "utctimestamp": "2016-05-17 11:19:52+00:00", "author": "user", "timestamp": "2016-05-17 13:19:52",
    "raw_node": "937992d19d72b5116c3e8c4a04f960e5fa270b22", "parents": ["71e195a33361"],
    "branch": "master", "message": "Commit message\n", "revision": None, "size": -1,
}  # fmt: skip
OWN_SHAPES: dict[str, Any] = {
    "repositories/jespern/django-piston": WHOLE,
    "repositories/dchambers/django-piston": {**WHOLE, "fork_of": WHOLE},
    "repositories/jespern": [WHOLE],
    "users/jespern": {"repositories": [WHOLE], "user": PERSON},
    "user": {"repositories": [WHOLE], "user": PERSON},
    "user/repositories": [WHOLE],
    "user/follows": [WHOLE],
    "user/privileges": {"teams": {}},
    "repositories?name=piston": {
        "query": "box2d",
        "count": 6,
        "repositories": [
            {
                "website": "", "scm": "hg", "name": "Box2D", "followers_count": 1, "owner": "Crisu83",
                "logo": None, "resource_uri": "/1.0/repositories/Crisu83/box2d", "slug": "box2d",
                "description": "",
            }
        ],
    },
    "repositories/jespern/django-piston/branches": {"*": CHANGESET},
    "repositories/jespern/django-piston/tags": {"*": {**CHANGESET, "branch": None, "branches": []}},
    "repositories/jespern/django-piston/branches-tags": {
        "branches": [{"changeset": "f" * 40, "heads": ["f" * 40], "name": "default", "mainbranch": True}],
        "tags": [{"changeset": "f" * 40, "name": "0.1"}],
    },
    "repositories/jespern/django-piston/main-branch": {"name": "master"},
    "repositories/jespern/django-piston/followers": {"count": 291, "followers": [PERSON]},
    "repositories/jespern/django-piston/events": {
        "count": 1,
        "events": [
            {
                "node": None, "description": None, "repository": {}, "created_on": "2013-02-20 00:15:53",
                "user": None, "utc_created_on": "2013-02-19 23:15:53+00:00", "event": "pushed",
            }
        ],
    },
}  # fmt: skip
"""Shapes as they were recorded, for machines that have no recordings; `*` stands for any name."""

REAL: dict[str, str] = {
    f"{COMPOSER}.1.json": "repositories/jespern/django-piston",
    f"{COMPOSER}.4.json": "repositories/jespern/django-piston/tags",
    f"{COMPOSER}.5.json": "repositories/jespern/django-piston/branches",
    f"{SPRING}/create-repo.json": "repositories/jespern/django-piston",
    f"{SPRING}/get-one-repo.json": "repositories/jespern/django-piston",
    f"{SPRING}/get-user.json": "users/jespern",
    f"{SPRING}/get-profile-unauthenticated.json": "users/jespern",
    f"{SPRING}/get-profile-authenticated.json": "user",
    f"{SPRING}/get-user-repositories.json": "user/repositories",
    f"{SPRING}/get-repositories-visible.json": "user/repositories",
    f"{SPRING}/get-repositories-account-follows.json": "user/follows",
    f"{SPRING}/get-repositories-following.json": "user/repositories/overview",
    f"{SPRING}/get-repositories-on-dashboard.json": "user/repositories/dashboard",
    f"{SPRING}/get-user-privileges.json": "user/privileges",
    f"{SPRING}/search-repos.json": "repositories?name=piston",
    f"{SPRING}/get-tags.json": "repositories/jespern/django-piston/tags",
    f"{SPRING}/repo-followers.json": "repositories/jespern/django-piston/followers",
    f"{SPRING}/get-followers.json": "repositories/jespern/django-piston/followers",
    f"{SPRING}/get-events.json": "repositories/jespern/django-piston/events",
}
"""Recorded answers, and what to ask of the mirror to compare."""

UNKNOWN = {
    ".revision": "a local number of Mercurial's, which no upstream tells any more",
    ".user": "who pushed, which no upstream tells",
    ".tags{}.branch": "on which branch a tagged commit lies; null for git then too",
    ".logo": "recorded as null too, where there is none",
    ".website": "recorded as null too, for forks",
    ".fork_of": "null where there is none",
    **{
        f".{key}": "null where the upstream did not tell it"
        for key in ("followers_count", "forks_count", "avatar", "display_name", "first_name", "last_name")
    },
}
"""What may be null here where it was a value there; everything else that was a value must be one."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsgiClient, str]:
    """A mirror in which every kind of answer has something in it, and a token that speaks for jespern."""
    path = tmp_path_factory.mktemp("shapes") / "mirror.db"
    filled = fill_public(path)
    filled.follower("dchambers/django-piston", "jespern")
    filled.refs("jespern/django-piston", [hg_ref("branch", "default", "9"), *PISTON_REFS[1:]], at=LATER)
    filled.members(owner("mcatalbas"), [JESPERN])
    token = make_tokens(filled.store)["user"]
    filled.store.close()
    return client_of(path), token


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def differences(recorded: Any, ours: Any, where: str = "") -> Iterator[str]:
    """Yield what the recorded answer has and ours has not: keys, and types of values."""
    if recorded is None or (ours is None and any(where.endswith(end) for end in UNKNOWN)):
        return
    if _kind(recorded) != _kind(ours) and not where.endswith(".fork"):  # false, or the path of the parent
        yield f"{where}: {_kind(recorded)} there, {_kind(ours)} here"
    elif isinstance(recorded, list) and recorded and isinstance(recorded[0], dict | list):
        mixed = len({_kind(item) for item in recorded}) > 1  # a pair, not a list
        for place, item in enumerate(recorded if ours else ()):
            yield from differences(item, ours[place if mixed else 0], f"{where}[]")
    elif isinstance(recorded, dict) and where.endswith((".tags", ".branches", ".teams")):
        for item in recorded.values():
            yield from differences(item, next(iter(ours.values())), f"{where}{{}}")
    elif isinstance(recorded, dict):
        yield from (f"{where}.{key}: missing here" for key in recorded.keys() - ours.keys())
        for key in recorded.keys() & ours.keys():
            yield from differences(recorded[key], ours[key], f"{where}.{key}")


def _ask(served: tuple[AsgiClient, str], what: str) -> Any:
    client, token = served
    return client.json(f"/1.0/{what}", headers=bearer(token))


def _where(what: str) -> str:
    last = what.rpartition("/")[2]
    return f".{last}" if last in ("tags", "branches") else ""


@pytest.mark.parametrize("what", OWN_SHAPES)
def test_every_documented_key_is_there_with_its_type(served: tuple[AsgiClient, str], what: str) -> None:
    """The recorded shapes are stored with the tests, so every machine compares them."""
    assert list(differences(OWN_SHAPES[what], _ask(served, what), _where(what))) == []


@pytest.mark.parametrize("recorded", REAL)
def test_every_key_of_a_recorded_answer_is_there_with_its_type(
    served: tuple[AsgiClient, str], recorded: str
) -> None:
    """The recorded answers themselves, if they are present."""
    if not (RECORDED / recorded).exists():
        pytest.skip("no recorded answers on this machine")
    what = REAL[recorded]
    there = json.loads((RECORDED / recorded).read_text("utf-8"))
    assert list(differences(there, _ask(served, what), _where(what))) == []


def test_the_comparison_finds_what_is_missing() -> None:
    """A missing key or another type is reported at any depth."""
    ours = {**WHOLE, "fork_of": {**WHOLE, "size": "9"}}
    del ours["owner"]
    assert sorted(differences({**WHOLE, "fork_of": WHOLE}, ours)) == [
        ".fork_of.size: number there, str here",
        ".owner: missing here",
    ]


@pytest.mark.parametrize(
    ("moment", "wall"),
    [
        ("2012-10-09T20:34:47.000000Z", "2012-10-09 22:34:47"),
        ("2012-11-12T14:53:21.000000Z", "2012-11-12 15:53:21"),
        ("2012-03-25T00:59:59.000000Z", "2012-03-25 01:59:59"),
        ("2012-03-25T01:00:00.000000Z", "2012-03-25 03:00:00"),
        ("2012-10-28T00:59:59.000000Z", "2012-10-28 02:59:59"),
        ("2012-10-28T01:00:00.000000Z", "2012-10-28 02:00:00"),
        ("1969-12-31T23:30:00.000000Z", "1970-01-01 00:30:00"),
    ],
)
def test_local_time_is_that_of_amsterdam(moment: str, wall: str) -> None:
    """In recorded pairs, and in both nights of the year when clocks change."""
    assert local(moment) == wall
    assert local_millis(moment) == wall.replace(" ", "T") + ".000"


def test_utc_and_milliseconds_have_the_old_format() -> None:
    """One has milliseconds, the other no fraction; unknown is null."""
    moment = "2016-05-17T11:20:21.993999Z"
    assert (utc(moment), local_millis(moment)) == ("2016-05-17 11:20:21+00:00", "2016-05-17T13:20:21.993")
    assert (utc(None), local(None), local_millis(None)) == (None, None, None)


@given(st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001
def test_local_time_is_one_or_two_hours_ahead_of_utc(when: datetime) -> None:
    """In every recorded pair, and for every moment."""
    ahead = datetime.strptime(str(local(to_text(when))), "%Y-%m-%d %H:%M:%S") - when.replace(microsecond=0)  # noqa: DTZ007
    assert ahead.total_seconds() in (3600, 7200)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"first_name": "Jesper", "last_name": "Noehr"}, ("Jesper", "Noehr")),
        ({"display_name": "Jesper Noehr"}, ("Jesper", "Noehr")),
        ({"display_name": "Anna Maria van Dijk"}, ("Anna Maria van", "Dijk")),
        ({"display_name": "jespern"}, ("jespern", "")),
        ({"display_name": "2 Team", "kind": "team"}, ("2 Team", "")),
        ({}, (None, None)),
    ],
)
def test_first_and_last_names(said: dict[str, str], names: tuple[str | None, str | None]) -> None:
    """As the upstream sent them, else derived from the display name; a team has no last name."""
    fields = dict.fromkeys(AccountRow.__struct_fields__)
    row = AccountRow(**{**fields, "username": "x", "kind": "user", **said})  # type: ignore[arg-type]
    shaped = shapes.user(row)
    assert (shaped["first_name"], shaped["last_name"]) == names
    assert shaped["is_team"] is (said.get("kind") == "team")


def test_a_ref_read_by_git_has_only_a_hash() -> None:
    """Values that the git protocol does not have are null."""
    row = RefRow("branch", "main", "ab" * 20)
    shaped = shapes.branches([row])["main"]
    assert (shaped["node"], shaped["raw_node"], shaped["parents"]) == ("abababababab", "ab" * 20, None)
    assert shaped["timestamp"] is shaped["utctimestamp"] is shaped["author"] is shaped["message"] is None


@pytest.mark.parametrize(
    ("raw", "account", "author"),
    [
        ("TK Soh <teekaysoh@gmail.com>", None, "TK Soh"),
        ("TK Soh <teekaysoh@gmail.com>", "tksoh", "tksoh"),
        ("shjohnst", None, "shjohnst"),
        ("<only@example.com>", None, ""),
    ],
)
def test_the_author_is_an_account_or_a_bare_name(raw: str, account: str | None, author: str) -> None:
    """Both were recorded in one answer."""
    row = RefRow("tag", "x", "a" * 40, target_author=raw, target_author_name=account)
    assert shapes.changeset(row, None)["author"] == author


def test_closed_and_many_headed_branches(served: tuple[AsgiClient, str]) -> None:
    """A Mercurial branch lists all its heads, a git branch has one."""
    rows = [
        RefRow("branch", name, digit * 40, heads=heads)
        for name, digit, heads in (("a", "1", "[]"), ("b", "2", '["2", "3"]'), ("c", "4", None))
    ]
    shaped = shapes.branches_tags(rows, [], "b")["branches"]
    assert [one["heads"] for one in shaped] == [[], ["2", "3"], ["4" * 40]]
    assert [one.get("mainbranch") for one in shaped] == [None, True, None]


def test_the_seed_documents_examples(served: tuple[AsgiClient, str]) -> None:
    """The documented example has the same keys and the same values."""
    answer = _ask(served, "users/jespern/")
    (repository,) = answer["repositories"]
    assert (repository["slug"], repository["followers_count"]) == ("django-piston", 173)
    assert repository["description"] == PISTON.description
    assert answer["user"]["first_name"] == "Jesper"
    tags = _ask(served, "repositories/jespern/django-piston/tags/")
    assert list(tags) == ["0.2.1", "0.2.2", "0.2.3", "tip"]
    times = [tags["0.2.1"][key] for key in ("timestamp", "utctimestamp")]
    assert times == ["2010-07-20 14:00:00", "2010-07-20 12:00:00+00:00"]


def test_json_is_one_line_with_blanks_as_python_writes_it(served: tuple[AsgiClient, str]) -> None:
    """Old scripts cut answers at `"slug": ` with sed, one line at a time."""
    for path in ("users/jespern", "repositories/jespern/django-piston/tags", "nothing"):
        line = served[0].get(f"/1.0/{path}").text
        assert line == json.dumps(json.loads(line), ensure_ascii=False)
        assert served[0].get(f"/1.0/{path}?callback=shown").text == f"/**/shown({line});"
