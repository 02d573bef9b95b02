"""Data Center: the server's own page starts are followed, and its objects decoded as recorded."""

from typing import Any

import httpx
import msgspec
import pytest
from fake_datacenter import HOST, PERMISSION, PUBLIC, connected, paged
from upstream_fakes import NOON, Responder, answer, recorded

from mirror.config import UpstreamConfig
from mirror.errors import CredentialsRefused, UpstreamBusy, UpstreamRefused, UpstreamShapeError
from mirror.model import Owner, Project, Ref, Repository, RepositoryKey
from mirror.sync.landmarks import next_landmark
from mirror.upstream import datacenter_decode as shapes
from mirror.upstream.connect import url_of

API = f"{HOST}/rest/api/1.0"
KEY = RepositoryKey(uuid="id:1", full_name="AMUNIZ/test-repos", scm="git")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (HOST, API),
        (f"{HOST}/", API),
        (f"{HOST}/bitbucket", f"{HOST}/bitbucket/rest/api/1.0"),
        (f"{HOST}/rest/api/latest/", f"{HOST}/rest/api/latest"),
    ],
)
def test_the_address_is_completed(url: str, expected: str) -> None:
    """The server's base address is enough."""
    assert url_of(UpstreamConfig(name="d", kind="datacenter", url=url)) == expected


def test_repositories_are_decoded() -> None:
    """Numbers as identities, the project as owner, clone addresses without logins, and no dates."""
    ours = connected(answer(recorded("datacenter/repos.json")))
    found = ours.upstream.fetch_repositories("AMUNIZ", "created", None)
    assert ours.server.urls == [f"{API}/projects/AMUNIZ/repos?limit=1000&start=0"]
    assert len(found.rows) == 3
    assert found.rows[0] == Repository(
        uuid="id:1",
        owner=Owner(
            uuid="id:1",
            username="AMUNIZ",
            display_name="prj",
            kind="workspace",
            project=Project(
                key="AMUNIZ", uuid="id:1", name="prj", description="This is a test repo", is_private=False
            ),
        ),
        slug="test-repos",
        name="test-repos",
        full_name="AMUNIZ/test-repos",
        scm="git",
        tells_main_branch=False,
        is_private=True,
        fork_policy="no_forks",
        project_key="AMUNIZ",
        project_name="prj",
        project_uuid="id:1",
        clone_https=f"{HOST}/scm/amuniz/test-repos.git",
        clone_ssh="ssh://git@localhost:7999/amuniz/test-repos.git",
    )
    assert (found.next, found.size, found.date, found.bad) == (None, None, NOON, ())
    assert not ours.upstream.orders_by_update
    assert ours.budget.limit() is None


def test_personal_projects_and_forks_are_decoded() -> None:
    """A key with a tilde is a person's; the parent is in `origin`; logins in addresses are removed."""
    project = {"key": "~DAOM", "id": 7, "name": "Oskar", "type": "PERSONAL"}
    row = {
        "slug": "x",
        "id": 9,
        "project": project,
        "public": True,
        "forkable": True,
        "origin": {"slug": "x", "id": 3, "project": {"key": "PRJ", "id": 2}},
        "links": {"clone": [{"href": "https://oskar:pw@host/scm/~daom/x.git", "name": "http"}]},
    }
    found = connected(paged(row)).upstream.fetch_repositories("~DAOM", "created", None).rows[0]
    assert (found.owner.kind, found.owner.username, found.full_name) == ("user", "~DAOM", "~DAOM/x")
    assert (found.parent_uuid, found.parent_full_name, found.fork_policy) == ("id:3", "PRJ/x", "allow_forks")
    assert (found.clone_https, found.is_private) == ("https://host/scm/~daom/x.git", False)


def test_the_servers_next_page_start_is_used() -> None:
    """It may skip ahead, be null or be missing; it is never computed."""
    ours = connected(paged(isLastPage=False, nextPageStart=200), paged(nextPageStart=None), paged())
    place = ours.upstream.fetch_repositories("P", "created", None).next
    assert place == "200"
    assert ours.upstream.fetch_repositories("P", "created", place).next is None
    assert ours.server.urls[1].endswith("&start=200")
    assert ours.upstream.fetch_repositories("P", "created", place).next is None


@pytest.mark.parametrize("onward", [None, 0, 100, -1])
def test_an_unusable_next_page_start_is_reported(onward: int | None) -> None:
    """A page that is not the last must have a larger start."""
    ours = connected(paged(isLastPage=False, nextPageStart=onward, start=100))
    with pytest.raises(UpstreamShapeError, match="said to start at"):
        ours.upstream.fetch_repositories("P", "created", "100")


def test_a_page_that_does_not_say_whether_it_is_the_last_is_not() -> None:
    """Such as `{"values": []}` of a proxy, or of a server of another kind: what it lists may be missing."""
    bodies: list[dict[str, Any]] = [{"values": []}, {"values": [], "isLastPage": None, "nextPageStart": None}]
    for body in bodies:
        with pytest.raises(UpstreamShapeError, match="does not say whether it is the last"):
            connected(answer(body)).upstream.fetch_repositories("P", "created", None)


def test_projects_are_decoded() -> None:
    """The caller's own are listed; one is requested by key."""
    ours = connected(answer(recorded("datacenter/project-page-truncated.json")))
    found = ours.upstream.fetch_workspaces(None)
    assert [(row.uuid, row.username) for row in found.rows] == [("id:1", "PRJ1"), ("id:2", "PRJ2")]
    assert found.next == "2"
    ours = connected(answer({"key": "~x y", "id": 5, "name": "X", "type": "PERSONAL"}))
    assert ours.upstream.fetch_workspace("~x y").kind == "user"
    assert ours.server.urls == [f"{API}/projects/~x%20y"]


def test_members_are_those_with_rights() -> None:
    """Ids of people are separate from those of projects."""
    ours = connected(answer(recorded("datacenter/project-permission-users.json")), credential="t")
    member = ours.upstream.fetch_members("P", None).rows[0]
    assert (member.user.uuid, member.user.username, member.permission) == ("user:339", "test", "member")


def test_the_owner_of_a_personal_project_is_a_member() -> None:
    """The server does not list this right, and may list a lesser one; without an id, nobody is known."""
    listed = recorded("datacenter/project-permission-users.json")
    project = {"key": "~TEST", "id": 5, "type": "PERSONAL", "owner": listed["values"][0]["user"]}
    ours = connected(answer(project), answer(listed), answer({**project, "owner": {}}), answer(listed))
    for permissions in (["owner"], ["member"]):
        ours.upstream.fetch_workspace("~test")
        members = ours.upstream.fetch_members("~test", None).rows
        assert [(one.user.uuid, one.permission) for one in members] == [("user:339", permissions[0])]


def test_a_run_that_goes_on_with_members_knows_the_owner_too() -> None:
    """An earlier run requested the project; without its owner, the last page would end that membership."""
    listed = recorded("datacenter/project-permission-users.json")
    project = {"key": "~TEST", "id": 5, "type": "PERSONAL", "owner": listed["values"][0]["user"]}
    ours = connected(answer(project), answer(listed), answer(listed))
    for _ in range(2):
        rows = ours.upstream.fetch_members("~TEST", None).rows
        assert [(one.user.uuid, one.permission) for one in rows] == [("user:339", "owner")]
    assert len(ours.server.urls) == 3


def test_refs_are_two_listings() -> None:
    """Branches to their last page, then tags; each cursor leads to the next one."""
    branches, tags = recorded("datacenter/branches.json"), recorded("datacenter/tags.json")
    ours = connected(
        answer(branches | {"isLastPage": False, "nextPageStart": 7}), answer(branches), answer(tags)
    )
    pages, place = list[Any](), None
    while not pages or place:
        pages.append(ours.upstream.fetch_refs(KEY, place))
        place = pages[-1].next
    assert [page.next for page in pages] == ["branches:7", "tags:0", None]
    assert [url.partition("test-repos/")[2].partition("&details")[0] for url in ours.server.urls] == [
        "branches?limit=1000&start=0",
        "branches?limit=1000&start=7",
        "tags?limit=1000&start=0",
    ]
    assert pages[0].rows[0] == Ref(
        kind="branch", name="release/release-1", target_hash="bf0e8b7962c024026ad01ae09d3a11732e26c0d4"
    )
    assert pages[2].rows[0] == Ref(
        kind="tag",
        name='special-"$;><&#_=@!|.,/test',
        target_hash="046d9a3c1532acf4cf08fe93235c00e4d673c1d2",
    )
    with pytest.raises(UpstreamShapeError, match="not a cursor"):
        ours.upstream.fetch_refs(KEY, "elsewhere:1")


def test_ref_names_have_three_forms() -> None:
    """Full in `id`, full in `displayId`, or short in both."""
    tag = recorded("datacenter/tag-page.json")["values"][0]
    for shape in (
        {},
        {"displayId": "release-2.0.0", "id": "refs/tags/release-2.0.0"},
        {"displayId": "release-2.0.0"},
    ):
        ours = connected(paged(tag | shape))
        assert ours.upstream.fetch_refs(KEY, "tags:0").rows[0].name == "release-2.0.0"


def test_branch_details_hold_the_commit() -> None:
    """Author, date, message and parents; ignored if they are of another commit."""
    row = recorded("datacenter/branch-list.json")["values"][0]
    stale = connected(paged(row)).upstream.fetch_refs(KEY, None).rows[0]
    assert stale == Ref(kind="branch", name="hello-world", target_hash=row["latestChangeset"])
    fresh = connected(paged(row | {"latestCommit": "026e014dc71376bafc601c155fca75bd5dab8205"}))
    assert fresh.upstream.fetch_refs(KEY, None).rows[0] == Ref(
        kind="branch",
        name="hello-world",
        target_hash="026e014dc71376bafc601c155fca75bd5dab8205",
        target_date="2017-05-26T21:34:21.000000Z",
        target_author="Sergey <someone@example.com>",
        target_message="sticky fix",
        target_parents=("5114f8c7dcc51f9c85a223429938a0b5598d238d",),
    )
    assert shapes.moment(10**18) is None


def test_branches_name_the_main_branch() -> None:
    """Repositories do not, so a listing of them keeps the known one."""
    ours = connected(answer(recorded("datacenter/branches.json")))
    assert [row.is_main for row in ours.upstream.fetch_refs(KEY, None).rows] == [False, False, False, True]
    rows = connected(answer(recorded("datacenter/repos.json"))).upstream.fetch_repositories(
        "A", "created", None
    )
    assert not any(row.tells_main_branch for row in rows.rows)


def test_broken_rows_affect_only_themselves() -> None:
    """A ref without commit, a repository without project."""
    rows = connected(paged({"displayId": "x"}, {"displayId": "y", "latestCommit": "a" * 40}))
    found = rows.upstream.fetch_refs(KEY, None)
    assert ([row.name for row in found.rows], [row.what for row in found.bad]) == (["y"], ["x"])


def test_a_name_may_belong_to_another_repository() -> None:
    """Only the number identifies one; old names still answer after a move."""
    row = recorded("datacenter/repos.json")["values"][0]
    assert connected(answer(row | {"slug": "moved"})).upstream.fetch_repository(KEY).slug == "moved"
    with pytest.raises(UpstreamRefused, match="is id:5 now") as caught:
        connected(answer(row | {"id": 5})).upstream.fetch_repository(KEY)
    assert caught.value.status == 404


def test_a_401_for_one_resource_does_not_end_the_run() -> None:
    """Data Center answers 401 where others answer 403; wrong credentials have another exception."""
    with pytest.raises(UpstreamRefused, match="not permitted") as caught:
        connected(answer(PERMISSION, 401), credential="t").upstream.fetch_refs(KEY, None)
    assert caught.value.status == 401
    wrong = {
        "errors": [{"exceptionName": "com.atlassian.bitbucket.auth.IncorrectPasswordAuthenticationException"}]
    }
    for body in (wrong, b""):
        with pytest.raises(CredentialsRefused):
            connected(answer(body, 401), credential="t").upstream.fetch_refs(KEY, None)


def test_the_caller_is_decoded() -> None:
    """Its name is unknown, but a request that needs a login shows whether there is one."""
    assert connected(paged(), credential="t").upstream.fetch_current_user() is None
    assert not connected(paged()).upstream.fetch_current_user()
    for body, reason in ((PERMISSION, "treats us as anonymous"), (b"", "refuses the credential")):
        with pytest.raises(CredentialsRefused, match=reason):
            connected(answer(body, 401), credential="t").upstream.fetch_current_user()


def test_a_429_waits_for_its_retry_after() -> None:
    """The token bucket refills in seconds, which even a run that may not wait waits for."""
    ours = connected(answer({}, 429, retry_after="3"), paged(), may_wait=False)
    ours.upstream.fetch_repositories("P", "created", None)
    assert [round(nap) for nap in ours.time.naps] == [3]


def test_the_git_address_follows_from_the_api_address() -> None:
    """Below /scm, with the API's credential and an unescaped tilde."""
    ours = connected(answer("", 404), refs="git", credential="t")
    with pytest.raises(UpstreamRefused):
        ours.upstream.fetch_refs(RepositoryKey(uuid="id:1", full_name="~x/y", scm="git"), None)
    assert ours.server.urls == [f"{HOST}/scm/~x/y.git/info/refs?service=git-upload-pack"]
    assert ours.server.asked[0].headers["authorization"] == "Bearer t"


def by_length(most: int, failure: httpx.Response | Exception, count: int) -> Responder:
    """Answer pages of so many branches, and fail for more than `most` rows."""

    def respond(request: httpx.Request) -> httpx.Response:
        start, length = int(request.url.params["start"]), int(request.url.params["limit"])
        if length > most:
            if isinstance(failure, Exception):
                raise failure
            return httpx.Response(failure.status_code, content=failure.content)
        end = min(start + length, count)
        rows = [{"id": f"refs/heads/{number}", "latestCommit": "a" * 40} for number in range(start, end)]
        page: httpx.Response = paged(
            *rows, isLastPage=end == count, nextPageStart=None if end == count else end
        )
        return page

    return respond


@pytest.mark.parametrize(
    "failure",
    [
        answer(b'{"values": ["' + b"x" * 17 * 1024 * 1024 + b'"]}'),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        answer(b"", 504),
        answer(b"", 500),
    ],
)
@pytest.mark.parametrize(("most", "count"), [(1, 150), (150, 1200), (999, 1200)])
def test_pages_shrink_when_they_are_too_large_or_too_slow(most: int, count: int, failure: Any) -> None:
    """Every row comes once, in pages that grow again if possible."""
    ours = connected(by_length(most, failure, count), credential="t", attempts=1)
    names, place = list[str](), None
    for _ in range(2_000):
        page = ours.upstream.fetch_refs(KEY, place)
        names += [ref.name for ref in page.rows]
        place = page.next
        if place is None or place.startswith("tags"):
            break
    assert names == [str(number) for number in range(count)]


def test_pages_shrink_to_one_row_after_they_grew() -> None:
    """Of ten rows, twenty and then two, of which only one can be read at a time."""

    def respond(request: httpx.Request) -> httpx.Response:
        start, length = int(request.url.params["start"]), int(request.url.params["limit"])
        return by_length(10 if start + length <= 10 else 1, answer(b"", 500), 12)(request)

    ours = connected(respond, credential="t", attempts=1)
    first = ours.upstream.fetch_refs(KEY, None)
    assert [len(ours.upstream.fetch_refs(KEY, place).rows) for place in (first.next, "branches:11")] == [1, 1]
    assert len(first.rows) == 10


def test_a_page_of_one_row_that_fails_is_a_failure() -> None:
    """Pages do not shrink further."""
    ours = connected(answer(b"", 500), credential="t", attempts=1)
    with pytest.raises(UpstreamBusy, match="500"):
        ours.upstream.fetch_refs(KEY, None)
    assert len(ours.server.asked) <= 7


def test_personal_projects_are_found_by_their_repositories() -> None:
    """The list of projects omits them; if repositories may not be listed, a note says so."""
    personal = {"key": "~ann", "id": 7, "name": "Ann", "type": "PERSONAL"}
    ours = connected(paged({"key": "P", "id": 1}), paged(PUBLIC, PUBLIC | {"id": 2, "project": personal}))
    first = ours.upstream.fetch_workspaces(None)
    second = ours.upstream.fetch_workspaces(first.next)
    assert [owner.username for owner in (*first.rows, *second.rows)] == ["P", "P", "~ann"]
    assert second.next is None
    refused = connected(paged({"key": "P", "id": 1}), answer(PERMISSION, 401), credential="t")
    page = refused.upstream.fetch_workspaces(refused.upstream.fetch_workspaces(None).next)
    assert (page.rows, page.next) == ((), None)
    assert "personal projects are not mirrored" in page.note


def test_pages_of_the_same_owners_are_told_apart() -> None:
    """By their repositories: equal owners do not make a repeated page. Archived ones count."""
    pages = [paged(PUBLIC | {"id": at}, isLastPage=False, nextPageStart=at) for at in (1, 2)]
    ours = connected(paged({"key": "P", "id": 1}), *pages)
    cursor, landmark = ours.upstream.fetch_workspaces(None).next, None
    for number in (1, 2):
        found = ours.upstream.fetch_workspaces(cursor)
        landmark = next_landmark(found, asked=cursor, landmark=landmark, pages=number)
        cursor = found.next
        assert [owner.username for owner in found.rows] == ["P"]
    with pytest.raises(UpstreamShapeError, match="repeats"):
        next_landmark(
            msgspec.structs.replace(found, next="repos:9"), asked=cursor, landmark=landmark, pages=3
        )
    assert all("archived=ALL" in url for url in ours.server.urls[1:])


def test_a_parent_s_project_may_have_a_key_alone() -> None:
    """As a mirror sends of a parent that it does not hold."""
    parent = {"slug": "away", "name": "away", "project": {"key": "far"}}
    row = msgspec.convert(PUBLIC | {"origin": parent}, shapes.RepositoryJson)
    assert shapes.to_repository(row).parent_full_name == "far/away"


@pytest.mark.parametrize(
    ("seen", "is_somebody"),
    [
        (answer({"key": "P", "id": 1, "public": False}), True),
        (answer({"key": "P", "id": 1, "public": True}, x_ausername="token-7"), True),
        (answer({"key": "P", "id": 1, "public": True}, x_ausername="anonymous"), False),
        (answer({"key": "P", "id": 1, "public": True}), False),
        (answer(PERMISSION, 401), False),
        (answer({}, 404), False),
        (answer("<html>log in</html>"), False),
    ],
)
def test_a_token_of_a_project_is_judged_by_the_project(seen: httpx.Response, is_somebody: bool) -> None:
    """It has no user; hidden data, or the server's name for it, proves that it is valid."""
    ours = connected(answer(PERMISSION, 401), seen, credential="t", workspaces=("P",), attempts=1)
    if is_somebody:
        assert ours.upstream.fetch_current_user() is None
    else:
        with pytest.raises(CredentialsRefused, match="us as anonymous"):
            ours.upstream.fetch_current_user()
