"""Servers of API 1.0: names as identities, times from the UTC keys, refs as objects."""

from collections.abc import Callable
from typing import Any

import pytest
from upstream_fakes import NOON, answer, faked, recorded

from mirror.config import UpstreamConfig
from mirror.errors import ConfigError, CredentialsRefused, NameReused, UpstreamRefused, UpstreamShapeError
from mirror.model import Owner, Ref, RepositoryKey
from mirror.upstream.connect import url_of

HOST = "https://old.example"
KEY = RepositoryKey(uuid="name:u/s", full_name="U/s")
USER = recorded("legacy/user.json")


def connected(*answers: Any, **settings: Any) -> Any:
    """Connect to a server of API 1.0 with prepared answers."""
    return faked(*answers, kind="legacy", url=HOST, **settings)


@pytest.mark.parametrize("path", ["", "/1.0", "/1.0/", "/api", "/api/1.0", "/!api/1.0"])
def test_the_address_is_completed(path: str) -> None:
    """With any of the three prefixes."""
    found = url_of(UpstreamConfig(name="l", kind="legacy", url=HOST + path))
    assert found == HOST + (path.removesuffix("/").removesuffix("/1.0") + "/1.0")


def test_repositories_come_with_their_user() -> None:
    """In one answer; times are UTC, names in lower case are identities."""
    ours = connected(answer(USER))
    found = ours.upstream.fetch_repositories("ericbottard", "created", None)
    assert ours.server.urls == [f"{HOST}/1.0/users/ericbottard/"]
    first = found.rows[0]
    assert (first.uuid, first.full_name) == (
        "name:ericbottard/presidentielles-dataviz",
        "ericbottard/presidentielles-dataviz",
    )
    assert (first.created_at, first.updated_at) == (
        "2011-11-20T18:25:29.000000Z",
        "2012-02-20T21:29:16.000000Z",
    )
    assert (first.size, first.main_branch, first.is_private, first.language) == (
        29397517,
        "master",
        True,
        "java",
    )
    assert (first.fork_policy, first.parent_full_name) == ("allow_forks", None)
    assert first.owner.uuid == "name:ericbottard"
    assert first.owner.first_name == USER["user"]["first_name"]
    assert (found.next, found.size) == (None, 2)


def test_a_repository_that_is_named_twice_counts_once() -> None:
    """Else the rest would be taken for hidden, and the listing be read again in every run."""
    row = USER["repositories"][0]
    ours = connected(answer(USER | {"repositories": [row, {**row, "slug": row["slug"].upper()}]}))
    found = ours.upstream.fetch_repositories("ericbottard", "created", None)
    assert (len(found.rows), found.size) == (2, 1)


def test_a_user_is_shaped_with_both_names() -> None:
    """A team has a switch, on newer servers."""
    user = {"username": "Rex.Z", "first_name": "Rex", "last_name": "", "is_team": True, "avatar": "https://a"}
    ours = connected(answer({"user": user, "repositories": []}))
    assert ours.upstream.fetch_workspace("Rex.Z") == Owner(
        uuid="name:rex.z",
        username="Rex.Z",
        first_name="Rex",
        last_name="",
        kind="team",
        avatar_url="https://a",
    )


def test_a_fork_names_its_parent() -> None:
    """By owner and slug of the nested repository; policies are two switches."""
    row = recorded("legacy/repository.json") | {
        "fork_of": recorded("legacy/short.json"),
        "no_public_forks": True,
    }
    found = connected(answer(row)).upstream.find_repository(KEY.full_name)
    assert (found.parent_full_name, found.parent_uuid) == (
        "fuzzybinary/box2dxna",
        "name:fuzzybinary/box2dxna",
    )
    assert (found.full_name, found.name, found.forks_count) == ("tutorials/test5003", "mynewrepo", 0)
    assert found.fork_policy == "no_public_forks"
    shut = connected(answer(row | {"no_forks": True, "size": -1})).upstream.find_repository(KEY.full_name)
    assert (shut.fork_policy, shut.size) == ("no_forks", None)


def test_a_short_row_takes_its_owner_from_the_address() -> None:
    """Early rows had no owner; missing values are None, and the repository private."""
    row = recorded("legacy/short.json") | {"owner": None}
    found = connected(answer(row)).upstream.find_repository(KEY.full_name)
    assert (found.full_name, found.followers_count, found.fork_policy) == ("fuzzybinary/box2dxna", 2, None)
    assert (found.created_at, found.is_private) == (None, True)
    with pytest.raises(UpstreamShapeError, match="without owner"):
        connected(answer({"name": "x"})).upstream.find_repository(KEY.full_name)


def test_refs_are_objects_by_name() -> None:
    """Branches, then tags; with the full hash, the author as login and raw, and the UTC time."""
    ours = connected(answer(recorded("legacy/branches.json")), answer(recorded("legacy/tags.json")))
    branches = ours.upstream.fetch_refs(KEY, None)
    assert branches.rows == (
        Ref(
            kind="branch",
            name="master",
            target_hash="937992d19d72b5116c3e8c4a04f960e5fa270b22",
            target_date="2016-05-17T11:19:52.000000Z",
            target_author="User <someone@example.com>",
            target_author_name="user",
            target_message="Commit message\n",
        ),
    )
    tags = ours.upstream.fetch_refs(KEY, branches.next)
    assert [(ref.kind, ref.name) for ref in tags.rows] == [("tag", "0.9"), ("tag", "tip")]
    assert tags.next is None
    assert ours.server.urls == [f"{HOST}/1.0/repositories/U/s/{kind}/" for kind in ("branches", "tags")]
    with pytest.raises(UpstreamShapeError, match="not a cursor"):
        ours.upstream.fetch_refs(KEY, "elsewhere")


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (lambda old: old.fetch_workspace("U"), "users/new/"),
        (lambda old: old.fetch_repositories("U", "created", None), "users/new/"),
        (lambda old: old.fetch_repository(KEY), "repositories/U/new/"),
        (lambda old: old.fetch_refs(KEY, None), "repositories/U/new/branches/"),
    ],
)
def test_a_name_that_leads_to_another_one_is_another_object(ask: Callable[[Any], Any], path: str) -> None:
    """Names are identities, so nothing is known of the one that was asked for."""
    moved = answer(None, 301, Location=f"/1.0/{path}")
    with pytest.raises(NameReused, match=f"it leads to {HOST}/1.0/{path} now"):
        ask(connected(moved, answer({"user": {"username": "new"}, "owner": "U", "slug": "s"})).upstream)


@pytest.mark.parametrize("location", ["/!api/1.0/users/u", "/1.0/users/%75/?page=1", "/1.0/users/U"])
def test_a_redirect_to_another_spelling_of_the_name_is_followed(location: str) -> None:
    """In any case, behind any prefix, with or without the last slash."""
    moved = answer(None, 301, Location=location)
    old = connected(moved, answer({"user": {"username": "u"}, "repositories": []})).upstream
    assert old.fetch_repositories("U", "created", None).rows == ()


def test_an_answer_about_another_repository_is_refused() -> None:
    """A server may look the new name up itself."""
    with pytest.raises(NameReused, match="U/s is called U/new now"):
        connected(answer({"owner": "U", "slug": "new"})).upstream.fetch_repository(KEY)


def test_a_user_without_a_list_of_repositories_does_not_have_none() -> None:
    """The user is known; what they own is not."""
    old = connected(answer({"user": {"username": "U"}})).upstream
    assert old.fetch_workspace("U").username == "U"
    with pytest.raises(UpstreamShapeError, match="lists no `repositories`"):
        old.fetch_repositories("U", "created", None)


def test_a_ref_without_whole_hash_is_a_bad_row() -> None:
    """Twelve digits may not be unique; names of any kind are kept."""
    entry = recorded("legacy/branches.json")["master"]
    found = connected(
        answer({'q"\\': entry, "cut": entry | {"raw_node": None}, "odd": 5})
    ).upstream.fetch_refs(KEY, None)
    assert ([ref.name for ref in found.rows], [row.what for row in found.bad]) == (['q"\\'], ["cut", "odd"])


def test_the_caller_and_own_repositories_are_decoded() -> None:
    """The caller, and the owners of all visible repositories, each once."""
    ours = connected(answer(USER), credential="me:t")
    caller = ours.upstream.fetch_current_user()
    assert caller is not None
    assert caller.username == "ericbottard"
    rows = [
        {"owner": "b", "slug": "1"},
        {"owner": "a", "slug": "1"},
        {"owner": "b", "slug": "2"},
        {"slug": "3"},
    ]
    found = connected(answer(rows), credential="me:t").upstream.fetch_workspaces(None)
    assert ([row.username for row in found.rows], len(found.bad)) == (["b", "a"], 1)
    with pytest.raises(CredentialsRefused, match="401 - the upstream refuses the credential"):
        connected(answer("", 401), credential="me:t").upstream.fetch_current_user()
    with pytest.raises(UpstreamRefused, match="name in the configuration"):
        connected(answer("", 401)).upstream.fetch_workspaces(None)
    assert connected(answer("")).upstream.fetch_current_user() is None


def test_members_are_not_offered() -> None:
    """Without any request."""
    ours = connected(answer(""))
    found = ours.upstream.fetch_members("u", None)
    assert (found.rows, found.next, found.date) == ((), None, NOON)
    assert not ours.server.asked


def test_git_is_not_used() -> None:
    """The location of its repositories is unknown."""
    with pytest.raises(ConfigError, match='refs = "api"'):
        connected(answer(""), refs="git")
