"""Cloud: few requests, links followed as sent, and a bad row affects only itself."""

import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import pytest
from examples import examples
from random_json import random_json, random_object
from upstream_fakes import NOON, Script, answer, faked, page, recorded

from mirror.errors import CredentialsRefused, UpstreamBusy, UpstreamRefused, UpstreamShapeError
from mirror.model import Owner, RepositoryKey
from mirror.upstream.protocol import BadRow, Page

API = "https://api.bitbucket.org/2.0"
KEY = RepositoryKey(uuid="{b8313f5b-2134-488d-9aca-830fb95206c5}", full_name="gildas_cherruel/bb")
ROW = {"uuid": "{1}", "full_name": "w/one", "is_private": False}
RECORDINGS = Path(__file__).parents[2] / "shared" / "recorded" / "cloud2"


def params(server: Script) -> httpx.QueryParams:
    """Return the parameters of the last request."""
    return server.asked[-1].url.params


def test_repositories_are_requested_in_full_and_in_order() -> None:
    """A hundred a page, in a stable order, with every key, because unknown ones are kept too."""
    ours = faked(answer(recorded("cloud/repositories.json")))
    found = ours.upstream.fetch_repositories("gildas cherruel", "created", None)
    assert ours.server.asked[0].url.raw_path.startswith(b"/2.0/repositories/gildas%20cherruel?")
    assert params(ours.server)["fields"] == "-previous"
    assert (params(ours.server)["pagelen"], params(ours.server)["sort"]) == ("100", "created_on")
    assert [row.slug for row in found.rows] == [
        "bb",
        "bump",
        "design-bucket",
        "stash-example-plugin",
        "test-repos",
    ]
    assert (found.size, found.next, found.bad, found.skipped, found.date) == (5, None, (), False, NOON)
    ours.upstream.fetch_repositories("w", "newest-update", None)
    assert params(ours.server)["sort"] == "-updated_on"


@pytest.mark.parametrize(
    "place",
    [
        f"{API}/repositories/w?page=8xhd&q=name+%7E+%22x%22&fields=a,b",
        f"{API}/repositories/w?after=1970-01-01T00:00:00+00:00&ctx=79edd3",
        "https://bitbucket.org/!api/2.0/repositories/w?page=2",
        "https://bitbucket.org/api/2.0/repositories/w?page=dbtR",
        f"{API}/repositories/%7Bw%7D?page=2",
    ],
)
def test_next_is_followed_verbatim(place: str) -> None:
    """Nothing is added; the other prefixes of Bitbucket's API are the same API."""
    ours = faked(page(ROW, next=place), page(), credential="token")
    found = ours.upstream.fetch_repositories("w", "created", None)
    assert found.next == place
    ours.upstream.fetch_repositories("w", "created", found.next)
    assert ours.server.urls[1] == place


@pytest.mark.parametrize(
    "place",
    [
        "http://www.google.com/fakeurl2",
        "https://staging.bitbucket.org/2.0/repositories/w?page=2",
        "http://api.bitbucket.org/2.0/repositories/w?page=2",
        "https://api.bitbucket.org:444/2.0/repositories/w",
        "https://api.bitbucket.org@evil.example/2.0/x",
        "https://me:s3cret@api.bitbucket.org/2.0/x",
        "https://evil.example\\@api.bitbucket.org/2.0/x",
        "https://api.bitbucket.org/3.0/repositories",
        "https://api.bitbucket.org/2.0/a b",
        "https://api.bitbucket.org/2.0/a\nb",
        "https://[bad/2.0/",
        "javascript:alert(1)",
    ],
)
def test_next_elsewhere_is_refused(place: str) -> None:
    """The credential must not leave the API's addresses."""
    ours = faked(page(ROW, next=place), credential="token")
    with pytest.raises(UpstreamShapeError, match="the next page is said to be at") as caught:
        ours.upstream.fetch_repositories("w", "created", None)
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_secret_in_a_link_or_a_bad_row_is_neither_stored_nor_shown() -> None:
    """A link becomes a cursor, a bad row a failure."""
    for link in ("https://elsewhere.invalid/s3cret-token", f"{API}/repositories/w?page=2&key=s3cret-token"):
        ours = faked(page(ROW, next=link), credential="s3cret-token")
        with pytest.raises(UpstreamShapeError, match="the next page is said to be at") as caught:
            ours.upstream.fetch_repositories("w", "created", None)
        assert "s3cret" not in str(caught.value)
    bad = {"full_name": f"{'x' * 90}/s3cret-token", "uuid": 5}
    found = faked(page(bad), credential="s3cret-token").upstream.fetch_repositories("w", "created", None)
    assert "s3cret" not in str(found.bad)
    assert found.bad


def test_a_secret_that_is_a_part_of_the_asked_address_may_be_in_the_next() -> None:
    """A short password may be the name of the workspace, or a part of the host."""
    ours = faked(page(ROW, next=f"{API}/repositories/sandbox?page=2"), credential="sandbox")
    assert ours.upstream.fetch_repositories("sandbox", "created", None).next is not None
    ours = faked(page(ROW, next=f"{API}/repositories/sandbox?page=sandbox"), credential="sandbox")
    with pytest.raises(UpstreamShapeError, match="the next page is said to be at"):
        ours.upstream.fetch_repositories("sandbox", "created", None)


def test_a_server_of_another_address_is_not_bitbucket_org() -> None:
    """A mirror with API 2.0 may use its three prefixes, not Bitbucket's host."""
    home = "http://mirror.example:8001"
    ours = faked(page(next=f"{home}/!api/2.0/repositories/w?page=2"), page(), url=f"{home}/2.0/")
    place = ours.upstream.fetch_repositories("w", "created", None).next
    assert place is not None
    assert ours.server.urls[0].startswith(f"{home}/2.0/repositories/w?")
    ours.upstream.fetch_repositories("w", "created", place)
    ours = faked(page(next=f"{API}/repositories/w?page=2"), url=f"{home}/2.0")
    with pytest.raises(UpstreamShapeError):
        ours.upstream.fetch_repositories("w", "created", None)


def test_an_unusable_next_is_reported() -> None:
    """An empty one means none, as null does; a link to the same page is an error."""
    ours = faked(page(next=""), page(next=None), page(next=f"{API}/repositories/w?page=7"))
    for _ in range(2):
        assert ours.upstream.fetch_repositories("w", "created", None).next is None
    with pytest.raises(UpstreamShapeError, match="this page"):
        ours.upstream.fetch_repositories("w", "created", f"{API}/repositories/w?page=7")


def test_one_broken_row_affects_only_itself() -> None:
    """Others are returned, and each bad one is named as well as possible."""
    good = [ROW | {"full_name": f"w/r{number}"} for number in range(97)]
    bad = [{"full_name": "w/odd", "size": "big"}, None, {"uuid": "{x}"}]
    found = faked(page(*good[:50], *bad, *good[50:])).upstream.fetch_repositories("w", "created", None)
    assert len(found.rows) == 97
    assert [row.what for row in found.bad] == ["w/odd", "a row", "{x}"]
    assert found.bad[0] == BadRow(
        what="w/odd", error="Expected `int | float | null`, got `str` - at `$.size`"
    )


def test_invalid_utf8_does_not_lose_a_page() -> None:
    """In bytes, in escapes, and NUL: the text is repaired."""
    rows = b'{"full_name":"w/a","name":"a\xff"},{"full_name":"w/b","name":"b%s"}'
    for escape in (rb"\ud800", rb"\u0000", b"\xfe"):
        ours = faked(answer(b'{"values":[' + rows % escape + b"]}"))
        found = ours.upstream.fetch_repositories("w", "created", None)
        assert [row.name for row in found.rows] == ["a\ufffd", "b\ufffd"]
        assert json.dumps([row.name for row in found.rows]).encode()


@pytest.mark.parametrize("size", [None, -1, 2**70, 1.5, "5", [], {}])
def test_totals_of_listings_are_read(size: Any) -> None:
    """Cursor pages have none, and invalid ones count as none."""
    found = faked(page(ROW, size=size)).upstream.fetch_repositories("w", "created", None)
    assert found.size == (1 if size == 1.5 else None)


def test_a_page_that_is_too_large_is_asked_for_with_fewer_rows() -> None:
    """From the same row on; a page whose `page` is a text cannot be divided."""
    large = answer(b'{"values":["' + bytes(17 << 20).replace(b"\0", b" ") + b'"]}')
    ours = faked(large, large, page(ROW))
    second = f"{API}/repositories/w?pagelen=100&sort=created_on&page=2"
    assert ours.upstream.fetch_repositories("w", "created", second).rows
    asked = [url.split("?")[1] for url in ours.server.urls[1:]]
    assert asked == ["pagelen=10&sort=created_on&page=11", "pagelen=1&sort=created_on&page=101"]
    opaque = f"{API}/repositories/w/r/refs?pagelen=100&page=x7f"
    with pytest.raises(UpstreamShapeError, match="larger than"):
        faked(large).upstream.fetch_refs(KEY, opaque)


@pytest.mark.parametrize("trouble", [answer("", 500), httpx.ReadTimeout("slow")])
def test_a_page_that_stays_broken_is_skipped(trouble: httpx.Response | Exception) -> None:
    """`fields=next` skips the bad row, and later pages are whole."""
    onward = f"{API}/repositories/w?pagelen=100&sort=created_on&fields=next&page=3"
    ours = faked(*[trouble] * 3, answer({"next": onward}), page(ROW))
    second = f"{API}/repositories/w?pagelen=100&sort=created_on&fields=next,values.uuid&page=2"
    found = ours.upstream.fetch_repositories("w", "created", second)
    assert (found.skipped, found.rows, found.size) == (True, (), None)
    assert ours.server.urls[:4] == [second] * 3 + [second.replace("next,values.uuid", "next")]
    assert found.next == onward.replace("fields=next", "fields=next,values.uuid")
    assert not ours.upstream.fetch_repositories("w", "created", found.next).skipped


def test_the_last_page_may_be_skipped_too() -> None:
    """It has no `next`, which ends the listing."""
    ours = faked(*[answer("", 502)] * 3, answer({}))
    found = ours.upstream.fetch_repositories("w", "created", None)
    assert (found.skipped, found.next) == (True, None)


def test_a_server_that_is_down_skips_no_page() -> None:
    """If `fields=next` fails too, the first error is reported; a 429 is not skipped."""
    ours = faked(*[answer("first", 503)] * 3, answer("second", 500))
    with pytest.raises(UpstreamBusy, match="first"):
        ours.upstream.fetch_repositories("w", "created", None)
    assert len(ours.server.asked) == 5
    ours = faked(answer("", 429, retry_after="1"))
    with pytest.raises(UpstreamBusy):
        ours.upstream.fetch_repositories("w", "created", None)
    assert len(ours.server.asked) == 3
    ours = faked(answer("", 500))
    with pytest.raises(UpstreamBusy):
        ours.upstream.fetch_refs(KEY, None)
    assert len(ours.server.asked) == 3


def test_a_broken_page_with_a_bad_next_does_not_loop() -> None:
    """A skipped page that links to itself would be requested for ever."""
    same = f"{API}/repositories/w?fields=next&page=2"
    ours = faked(*[answer("", 500)] * 3, answer({"next": same}))
    with pytest.raises((UpstreamBusy, UpstreamShapeError)):
        ours.upstream.fetch_repositories("w", "created", same.replace("=next", "=next,size"))


FULL = page({"name": "x"}, {"name": "y"}, pagelen=2, size=3)


@pytest.mark.parametrize(
    ("after", "is_last"),
    [
        (page(pagelen=2, size=3), True),
        (answer({"error": {"message": "Invalid page"}}, 404), True),
        (page(pagelen=2, size=3, next="https://api.bitbucket.org/2.0/x?page=3"), False),
        (answer({}, 403), False),
        (answer({}, 410), False),
        (answer("<html>", 200), False),
        (answer({"values": None}), False),
        (answer({}, 503), False),
        (httpx.ReadError("cut off"), False),
    ],
)
def test_the_page_after_a_full_one_below_the_total_tells_whether_it_was_the_last(
    after: httpx.Response | Exception, *, is_last: bool
) -> None:
    """An empty page or a 404 proves it; after anything else, the page stays suspicious."""
    fake = faked(FULL, after)
    found = fake.upstream.fetch_repositories("acme", "created", None)
    assert (found.next, found.full_length) == (None, 0 if is_last else 2)
    assert fake.server.urls[1] == f"{fake.server.urls[0]}&page=2"


def test_rows_on_the_page_after_a_full_one_are_read() -> None:
    """The lost link is replaced. With the whole total, an opaque page or a link, none is requested."""
    fake = faked(FULL, page({"name": "z"}, pagelen=2, size=3))
    first = fake.upstream.fetch_repositories("acme", "created", None)
    assert first.next == fake.server.urls[1]
    for asked, found in (
        (first.next.replace("page=2", "page=7"), page({}, {}, pagelen=2, size=14)),
        (first.next.replace("page=2", "page=Zx3"), FULL),
        (first.next, page({}, {}, pagelen=2, size=9, next=first.next.replace("page=2", "page=3"))),
        (first.next, page({}, pagelen=2)),
        (first.next, page({}, pagelen=2, size=9)),
    ):
        fake = faked(found)
        fake.upstream.fetch_repositories("acme", "created", asked)
        assert fake.server.urls == [asked]


def test_a_full_page_without_total_and_link_is_not_believed_to_be_the_last() -> None:
    """The next page tells, unless the server ignores its number; an error is not taken for the end."""
    untold = page({"name": "x"}, {"name": "y"}, pagelen=2)
    key = RepositoryKey(uuid="{1}", full_name="acme/tools", scm="git")
    for after, onward in ((page({"name": "z"}, pagelen=2), True), (page(pagelen=2), False), (untold, False)):
        fake = faked(untold, after)
        found = fake.upstream.fetch_refs(key, None).next
        assert found == (fake.server.urls[1] if onward else None)
    with pytest.raises(UpstreamBusy):
        faked(untold, answer({}, 503)).upstream.fetch_refs(key, None)


def test_refs_are_one_listing() -> None:
    """Branches and tags together, by the repository's uuid with escaped braces."""
    ours = faked(answer(recorded("cloud/refs.json")))
    found = ours.upstream.fetch_refs(KEY, None)
    path = b"/2.0/repositories/gildas_cherruel/%7Bb8313f5b-2134-488d-9aca-830fb95206c5%7D/refs?"
    assert ours.server.asked[0].url.raw_path.startswith(path)
    assert [row.kind for row in found.rows] == ["branch", "branch", "tag", "tag", "tag", "branch", "branch"]
    assert params(ours.server)["pagelen"] == "100"


def test_one_repository_is_requested_by_uuid() -> None:
    """Or by slug, if there never was a uuid."""
    ours = faked(answer(recorded("cloud/repositories.json")["values"][0]))
    assert ours.upstream.fetch_repository(KEY).uuid == KEY.uuid
    assert b"/gildas_cherruel/%7Bb8313f5b" in ours.server.asked[0].url.raw_path
    ours.upstream.fetch_repository(RepositoryKey(uuid="name:a/b", full_name="A/b.c"))
    assert ours.server.asked[1].url.path == "/2.0/repositories/A/b.c"


def test_members_come_once_with_their_highest_permission() -> None:
    """A user may have several rows; accounts without an identity are bad rows."""
    user, other = {"uuid": "{u}", "type": "user", "nickname": "n n"}, {"uuid": "{o}", "nickname": "o"}
    rows = [
        {"type": "workspace_membership", "user": user, "permission": "member"},
        {"type": "workspace_membership", "user": user, "permission": "owner"},
        {"type": "workspace_membership", "user": user, "permission": "collaborator"},
        {"type": "workspace_membership", "user": other},
        {"type": "workspace_membership", "user": {"nickname": "ghost"}},
    ]
    found = faked(page(*rows), credential="t").upstream.fetch_members("w", None)
    assert [(row.user.uuid, row.user.username, row.permission) for row in found.rows] == [
        ("{u}", "n n", "owner"),
        ("{o}", "o", None),
    ]
    assert len(found.bad) == 1


def test_the_callers_workspaces_are_nested() -> None:
    """In both recorded forms; the newer one has no name."""
    ours = faked(page(recorded("cloud/workspace-access.json"), {"workspace": {"slug": "w", "name": "W"}}))
    found = ours.upstream.fetch_workspaces(None)
    assert ours.server.asked[0].url.path == "/2.0/user/workspaces"
    assert [(row.username, row.display_name, row.kind) for row in found.rows] == [
        ("myworkspace", None, "workspace"),
        ("w", "W", "workspace"),
    ]


@pytest.mark.parametrize("status", [404, 410])
def test_a_removed_endpoint_says_what_to_configure(status: int) -> None:
    """Bitbucket may remove this endpoint like its predecessors."""
    ours = faked(answer(recorded("cloud/error-change-2770.json"), status))
    with pytest.raises(UpstreamRefused, match=r'workspaces = \["your-workspace"\]') as caught:
        ours.upstream.fetch_workspaces(None)
    assert str(caught.value).count("workspaces = [") == 1


def test_a_workspace_is_decoded() -> None:
    """With its own name and creation date."""
    ours = faked(answer(recorded("cloud/workspace.json")))
    assert ours.upstream.fetch_workspace("myworkspace") == Owner(
        uuid="{12345678-9abc-def0-1234-56789abcdef0}",
        username="myworkspace",
        display_name="My Workspace",
        kind="workspace",
        avatar_url="https://bitbucket.org/workspaces/myworkspace/avatar/?ts=1543733398",
        created_at="2018-12-02T06:49:58.468988Z",
    )


def test_the_caller_is_decoded() -> None:
    """A person, nobody in particular (403), or refused (401) with the relevant reason."""
    me = {"uuid": "{me}", "display_name": "Me", "nickname": "me"}
    found = faked(answer(me), credential="m@e:t").upstream.fetch_current_user()
    assert found is not None
    assert found.uuid == "{me}"
    assert faked(answer("", 403), credential="t").upstream.fetch_current_user() is None
    with pytest.raises(CredentialsRefused, match=r"user: 401 - the upstream refuses the credential"):
        faked(answer("", 401), credential="t").upstream.fetch_current_user()
    with pytest.raises(UpstreamRefused):
        faked(answer("", 404), credential="t").upstream.fetch_current_user()
    anonymous = faked(answer("", 401))
    assert anonymous.upstream.anonymous
    assert anonymous.upstream.fetch_current_user() is None
    assert not anonymous.server.asked


@pytest.mark.parametrize("words", ["", "<html>no such page</html>", {"error": {"message": "Not Found"}}])
def test_a_404_without_a_word_asks_about_the_address(words: Any) -> None:
    """Of the user, any 404 does: Bitbucket has one."""
    with pytest.raises(UpstreamRefused, match=r"404.* - is `url` right, with its path\?$"):
        faked(answer(words, 404), credential="t").upstream.fetch_current_user()
    if isinstance(words, str):
        with pytest.raises(UpstreamRefused, match="is `url` right"):
            faked(answer(words, 404)).upstream.fetch_workspace("one")


@pytest.mark.parametrize("body", [["jespern", "erik"], {"workspaces": ["jespern", {"slug": "erik"}]}])
def test_the_sandbox_tells_all_of_its_workspaces(body: Any) -> None:
    """At an address of its own, and its requests count without a limit."""
    ours = faked(answer(body), kind="sandbox")
    found = ours.upstream.fetch_workspaces(None)
    assert ours.server.urls == ["http://127.0.0.1:8002/-/sandbox/workspaces"]
    assert [row.username for row in found.rows] == ["jespern", "erik"]
    assert ours.budget.limit() is None
    assert ours.ledger.used("anonymous@127.0.0.1:8002", NOON) == 1


def test_budgets_follow_the_credential() -> None:
    """58 without one, 950 with one, or the configured one; accounts are by credential and host."""
    assert faked(page()).budget.limit() == 58
    assert faked(page(), credential="t").budget.limit() == 950
    ours = faked(page(), credential="me:t", requests_per_hour=10)
    assert ours.budget.limit() == 10
    ours.upstream.fetch_repositories("w", "created", None)
    assert [bucket.partition("-")[0] for bucket in ours.ledger.asked] == ["basic"]
    assert [bucket.partition("@")[2] for bucket in ours.ledger.asked] == ["api.bitbucket.org"]


NAMES = """
    uuid full_name slug name scm is_private description website language size mainbranch fork_policy parent
    followers_count forks_count has_issues has_wiki project key created_on updated_on links avatar clone href
    owner type username nickname display_name account_id workspace target hash date message parents heads
    author raw user tagger permission
"""
KEYS = NAMES.split()
TEXTS = ("branch", "tag", "a/b", "{1}", "2020-01-01T00:00:00+00:00", "team", "https://u:p@h/x")


def random_rows(choose: Random, real: list[dict[str, Any]]) -> list[Any]:
    """Return up to three rows: of any shape, of known keys, and real rows with some other values."""
    rows = list[Any]()
    for _ in range(choose.randrange(4)):
        if choose.random() < 0.2:
            rows.append(random_json(choose, KEYS, TEXTS, surrogates=True))
        else:
            row = choose.choice([{}, *real])
            rows.append(row | random_object(choose, KEYS, TEXTS, most=3 if row else 12, surrogates=True))
    return rows


def test_random_rows_never_end_a_run() -> None:
    """Any row becomes a value or a bad row, and both can be stored as text."""
    choose = Random(1)
    real = [row for name in ("repositories", "refs") for row in recorded(f"cloud/{name}.json")["values"]]
    for _ in range(examples(300)):
        rows = random_rows(choose, real)
        upstream = faked(answer(json.dumps({"values": rows}).encode()), credential="t").upstream
        pages: list[Page[Any]] = [
            upstream.fetch_repositories("w", "created", None),
            upstream.fetch_refs(KEY, None),
            upstream.fetch_members("w", None),
            upstream.fetch_workspaces(None),
        ]
        for found in pages[:2]:
            assert len(found.rows) + len(found.bad) == len(rows), rows
        text = msgspec.json.encode(pages, enc_hook=lambda _: None).decode()
        assert "\\u0000" not in text, rows


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not here")
def test_every_recorded_answer_is_decoded() -> None:
    """Every recorded repository, branch and tag, as a row of a listing, becomes a value."""
    repositories, refs = list[Any](), list[Any]()

    def collect(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            if "full_name" in value and ("scm" in value or "owner" in value):
                repositories.append(value)
            if value.get("type") in ("branch", "named_branch", "tag") and (value.get("target") or {}).get(
                "hash"
            ):
                refs.append(value)
            for item in value.values():
                collect(item)

    for path in RECORDINGS.rglob("*.json"):
        if "swagger" not in path.name:
            collect(json.loads(path.read_text("utf-8")))
    assert len(repositories) > 40
    assert len(refs) > 50
    found = faked(page(*repositories)).upstream.fetch_repositories("w", "created", None)
    assert not found.bad
    names = faked(page(*refs)).upstream.fetch_refs(KEY, None)
    assert not names.bad
    assert len(found.rows) + len(names.rows) == len(repositories) + len(refs)
