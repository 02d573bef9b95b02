"""Objects of API 2.0, in every form of the past, become values of the model."""

import json
from typing import Any

import msgspec
import pytest
from upstream_fakes import recorded

from mirror.addresses import without_login
from mirror.decoding import decoded_bytes, moment
from mirror.errors import UpstreamShapeError
from mirror.model import Owner, Project, Ref, Repository
from mirror.upstream import cloud_decode as decode
from mirror.upstream.cloud_decode import AccountJson, RefJson, RepositoryJson, WorkspaceJson
from mirror.upstream.response import shown, shown_url

REPOSITORIES = recorded("cloud/repositories.json")["values"]
REFS = recorded("cloud/refs.json")["values"]
LEAST = {"full_name": "Mimika_Oh/qi", "uuid": "{1}"}


def repository(row: Any) -> Repository:
    """Decode a repository as a row of a listing."""
    return decode.to_repository(msgspec.convert(row, RepositoryJson))


def ref(row: Any) -> Ref:
    """Decode a ref as a row of a listing."""
    return decode.to_ref(msgspec.convert(row, RefJson))


def test_a_current_repository_is_decoded() -> None:
    """Every field, and clone addresses without the caller's login."""
    assert repository(REPOSITORIES[0]) == Repository(
        uuid="{b8313f5b-2134-488d-9aca-830fb95206c5}",
        owner=Owner(
            uuid="{4115785a-a1b9-4887-9af2-ca401bc7f168}",
            username="gildas_cherruel",
            display_name="Gildas Cherruel",
            nickname="gildas_cherruel",
            account_id="557058:ec46c4b2-f245-496e-8c11-1404869e3346",
            avatar_url=REPOSITORIES[0]["owner"]["links"]["avatar"]["href"],
        ),
        slug="bb",
        name="bb",
        full_name="gildas_cherruel/bb",
        scm="git",
        is_private=REPOSITORIES[0]["is_private"],
        description="",
        website=None,
        language=REPOSITORIES[0]["language"],
        size=1874302,
        main_branch="master",
        fork_policy=REPOSITORIES[0]["fork_policy"],
        has_issues=REPOSITORIES[0]["has_issues"],
        has_wiki=REPOSITORIES[0]["has_wiki"],
        project_key=REPOSITORIES[0]["project"]["key"],
        project_name=REPOSITORIES[0]["project"]["name"],
        project_uuid=REPOSITORIES[0]["project"]["uuid"],
        project=Project(
            key=REPOSITORIES[0]["project"]["key"],
            uuid=REPOSITORIES[0]["project"]["uuid"],
            name=REPOSITORIES[0]["project"]["name"],
            avatar_url=REPOSITORIES[0]["project"]["links"]["avatar"]["href"],
        ),
        avatar_url="https://bytebucket.org/ravatar/%7Bb8313f5b-2134-488d-9aca-830fb95206c5%7D?ts=go",
        clone_https="https://bitbucket.org/gildas_cherruel/bb.git",
        clone_ssh="git@bitbucket.org:gildas_cherruel/bb.git",
        created_at=REPOSITORIES[0]["created_on"].replace("+00:00", "Z"),
        updated_at=REPOSITORIES[0]["updated_on"].replace("+00:00", "Z"),
    )


def test_a_mercurial_repository_of_2018_is_decoded() -> None:
    """No workspace, a user name, clone addresses without .git and with the service's own user."""
    found = repository(REPOSITORIES[1])
    assert (found.scm, found.main_branch, found.owner.username) == ("hg", "default", "gocardless")
    assert found.owner.uuid == "{681a1558-dc80-4f50-ac1a-60f9900bf1d2}"
    assert (found.clone_https, found.clone_ssh) == (
        "https://bitbucket.org/gocardless/bump",
        "ssh://hg@bitbucket.org/gocardless/bump",
    )


def test_a_repository_of_2014_without_slug_is_decoded() -> None:
    """The slug is the second half of the full name, never derived from the name."""
    found = repository(REPOSITORIES[2] | {"name": "viper's nest", "full_name": "teamsinspace/vipers-nest"})
    assert (found.slug, found.name, found.owner.username) == ("vipers-nest", "viper's nest", "teamsinspace")


def test_a_repository_without_owner_is_decoded() -> None:
    """The namespace is the identity if there is no other; missing sizes are None."""
    found = repository(REPOSITORIES[3])
    assert found.owner == Owner(uuid="name:atlassian", username="atlassian", kind="workspace")
    assert (found.size, found.description, found.has_wiki) == (None, None, None)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ({}, None),
        ({"mainbranch": None}, None),
        ({"mainbranch": {}}, None),
        ({"mainbranch": {"type": "branch"}}, None),
        ({"mainbranch": {"type": "branch", "name": "dev"}}, "dev"),
        ({"mainbranch": {"type": "named_branch", "name": "default"}}, "default"),
    ],
)
def test_main_branches_have_five_shapes(shape: dict[str, Any], name: str | None) -> None:
    """Four of them mean that there is none."""
    assert repository(LEAST | shape).main_branch == name


@pytest.mark.parametrize(
    ("shape", "uuid", "kind", "display_name"),
    [
        ({"owner": {"uuid": "{u}", "display_name": "U"}}, "{u}", "user", "U"),
        ({"owner": {"uuid": "{t}", "type": "team", "display_name": "T"}}, "{t}", "team", "T"),
        ({"owner": {"uuid": "{u}", "type": "user"}, "workspace": {"uuid": "{u}"}}, "{u}", "user", None),
        (
            {"owner": {"uuid": "{u}", "display_name": "U"}, "workspace": {"uuid": "{w}", "name": "W"}},
            "{w}",
            "workspace",
            "W",
        ),
        ({"workspace": {"uuid": "{w}", "slug": "other", "name": "W"}}, "{w}", "workspace", "W"),
        ({"owner": {"username": "old", "display_name": "O"}}, "name:mimika_oh", "user", "O"),
        ({"owner": None, "workspace": None}, "name:mimika_oh", "workspace", None),
    ],
)
def test_the_owner_is_the_workspace(
    shape: dict[str, Any], uuid: str, kind: str, display_name: str | None
) -> None:
    """By the workspace's identity; the account's data is used only if it has the same."""
    owner = repository(LEAST | shape).owner
    assert (owner.uuid, owner.kind, owner.display_name) == (uuid, kind, display_name)
    assert owner.username == "Mimika_Oh"


def test_parents_may_be_short_null_or_absent() -> None:
    """Missing values are None."""
    found = repository(LEAST | {"parent": {"type": "repository", "full_name": "a/b", "uuid": "{p}"}})
    assert (found.parent_uuid, found.parent_full_name) == ("{p}", "a/b")
    for shape in ("{}", '{"parent": null}', '{"parent": {}}'):
        assert repository(LEAST | json.loads(shape)).parent_full_name is None


def test_repositories_without_uuid_have_a_name_identity() -> None:
    """Rows of 2013 only have a full name."""
    assert repository({"full_name": "Mimika_Oh/qi"}).uuid == "name:mimika_oh/qi"


def test_a_repository_without_a_name_is_refused() -> None:
    """Owner and slug are not guessed, but each may come from another key."""
    for row in ({}, {"full_name": "a"}, {"full_name": "a/b/c"}, {"slug": "s"}, {"full_name": "/s"}):
        with pytest.raises(UpstreamShapeError, match="without owner and slug"):
            repository(row)
    assert repository({"slug": "s", "workspace": {"slug": "w"}}).full_name == "w/s"


def test_a_repository_not_called_public_is_private() -> None:
    """A missing `is_private` must not publish anything."""
    assert [repository(LEAST | shape).is_private for shape in ({}, {"is_private": False})] == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-27T14:15:58.600540+00:00", "2025-01-27T14:15:58.600540Z"),
        ("2008-08-01T01:53:20+00:00", "2008-08-01T01:53:20.000000Z"),
        ("2008-08-01T01:53:20.5Z", "2008-08-01T01:53:20.500000Z"),
        ("2008-08-01T01:53:20", "2008-08-01T01:53:20.000000Z"),
        ("2008-08-01 01:53:20+02:00", "2008-07-31T23:53:20.000000Z"),
        ("2008-13-01T01:53:20+00:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2025-01-27T14:15:58.6005xx+00:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_every_form_of_date_is_read(text: str | None, expected: str | None) -> None:
    """All become the mirror's form; an invalid date is None."""
    assert moment(text) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, 0),
        (887_709_436, 887_709_436),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (-1, None),
        (1e300, None),
        (5.0, 5),
    ],
)
def test_impossible_numbers_are_null(number: float, expected: int | None) -> None:
    """Negative sizes, and those beyond SQLite's integers."""
    assert repository(LEAST | {"size": number}).size == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me@bitbucket.org/o/r.git", "https://bitbucket.org/o/r.git"),
        ("https://me:t0k@n@bitbucket.org/o/r.git", "https://bitbucket.org/o/r.git"),
        ("ssh://hg@bitbucket.org/o/r", "ssh://hg@bitbucket.org/o/r"),
        ("ssh://git:pw@host:7999/o/r.git", "ssh://host:7999/o/r.git"),
        ("git@bitbucket.org:o/r.git", "git@bitbucket.org:o/r.git"),
        ("https://bitbucket.org/o/r@2.git", "https://bitbucket.org/o/r@2.git"),
    ],
)
def test_clone_addresses_lose_their_login(url: str, expected: str) -> None:
    """Everything before the host is removed, except the service's own users."""
    assert without_login(url) == expected


def test_a_branch_is_decoded() -> None:
    """Dates get fractions, parents are full hashes, messages keep their lines."""
    assert ref(REFS[0]) == Ref(
        kind="branch",
        name="bug/35-url-name-collision",
        target_hash="0d84b1758b5620aab804727f042e46a74b1efb6d",
        target_date="2016-02-29T23:07:11.000000Z",
        target_author="Ian Buchanan <someone@example.com>",
        target_author_name="Ian Buchanan [Atlassian]",
        target_author_uuid="{27e49bd2-9ecb-4a41-8387-033c972d1399}",
        target_message="fixed `api` name collision\n\nChanged name in all `create` locations.\n",
        target_parents=("f3e27b26f37af6ea5fbabf9d4c3847f27bb8a406",),
    )


def test_mercurial_branches_have_heads() -> None:
    """One if open, none if closed; git branches have no heads."""
    row = REFS[1]
    assert ref(row).heads == ("0fd7bb2494e8cc11c71c05f8f12deafa6b41fb37",)
    assert ref(row | {"heads": []}).heads == ()
    assert ref(row).kind == "branch"
    assert ref(REFS[0]).heads is None


def test_annotated_and_plain_tags_are_decoded() -> None:
    """Annotations are there, null (`tip`, lightweight) or absent (old answers)."""
    annotated, old = ref(REFS[2]), ref(REFS[3])
    assert (annotated.tagger, annotated.message) == (
        "Gildas Cherruel <someone@example.com>",
        "Release 1.0.0\n",
    )
    assert annotated.date == "2023-11-06T14:53:55.000000Z"
    assert annotated.target_author_name == "gitflow"
    assert (old.kind, old.tagger, old.message, old.date) == ("tag", None, None, None)
    tip = ref(REFS[3] | {"name": "tip", "tagger": None, "message": None, "date": None})
    assert tip == msgspec.structs.replace(old, name="tip")
    assert ref(REFS[4]).name == 'special-"$;><&#_=@!|.,/test'


def test_targets_with_few_keys_are_decoded() -> None:
    """An author without account or e-mail, no author, no parents, only a hash."""
    nobody, bare = ref(REFS[5]), ref(REFS[6])
    assert (nobody.target_author_name, nobody.target_author_uuid) == (None, None)
    assert nobody.target_author is not None
    assert bare == Ref(kind="branch", name=bare.name, target_hash=bare.target_hash)
    target = {"hash": "a" * 40, "author": {"raw": "shjohnst"}, "parents": []}
    first = ref({"type": "branch", "name": "x", "target": target})
    assert (first.target_author, first.target_parents) == ("shjohnst", ())
    unsure = ref({"type": "branch", "name": "x", "target": target | {"parents": [{}]}})
    assert unsure.target_parents is None


@pytest.mark.parametrize(
    "row",
    [
        {"type": "bookmark", "name": "x", "target": {"hash": "a"}},
        {"name": "x", "target": {"hash": "a"}},
        {"type": "tag", "name": "x", "target": None},
        {"type": "tag", "name": "x", "target": {"hash": ""}},
    ],
)
def test_invalid_refs_are_refused(row: Any) -> None:
    """A ref needs a known kind and a commit."""
    with pytest.raises(UpstreamShapeError, match="'x'"):
        ref(row)


def test_accounts_need_an_identity() -> None:
    """A user name of old answers is enough; a nickname, which is not unique, is not."""
    app = decode.to_account(AccountJson(uuid="{a}", type="app_user", display_name="bot"))
    old = decode.to_account(AccountJson(username="Erik", display_name="Erik"))
    assert (app.kind, app.username, old.uuid, old.username) == ("user", None, "name:erik", "Erik")
    with pytest.raises(UpstreamShapeError, match="without identity"):
        decode.to_account(AccountJson(nickname="erik"))
    with pytest.raises(UpstreamShapeError, match="without a slug"):
        decode.to_workspace(WorkspaceJson(uuid="{w}"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (rb'{"name": "a\ud800b"}', "a\ufffdb"),
        (rb'{"name": "\ud83d\ude00"}', "\U0001f600"),
        (b'{"name": "a\xffb"}', "a\ufffdb"),
        (rb'{"name": "a\u0000b"}', "a\ufffdb"),
        (b'{"name": "a\x00b"}', "a\ufffdb"),
        (b'{"name": "a\x01b"}', "a\x01b"),
        (rb'{"name": "\u202e"}', "\u202e"),
        (b'{"size": NaN, "name": "x"}', "x"),
        (b'\xef\xbb\xbf{"name": "x"}', "x"),
    ],
)
def test_text_that_sqlite_cannot_hold_is_replaced(body: bytes, expected: str) -> None:
    """Lone surrogates, invalid UTF-8 and NUL become U+FFFD; everything else stays."""
    name = decoded_bytes(body, RepositoryJson).name
    assert name == expected
    assert name is not None
    assert name.encode()


def test_foreign_text_is_shown_on_one_line() -> None:
    """Without escape sequences and endless lines; addresses without logins, tokens and field lists."""
    assert shown("a\x1b[31m\r\n b") == r"a\x1b[31m b"
    assert len(shown("x" * 999, 50)) == 50
    url = "https://u:p@h/2.0/x?page=8xhd&fields=a,b&access_token=s3"
    assert shown_url(url) == "https://h/2.0/x?page=8xhd"
