"""What of a Data Center strangers may see, which its flags alone do not say."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fake_datacenter import PERMISSION, PUBLIC, connected, paged
from upstream_fakes import Responder, answer

from mirror.errors import UpstreamBusy
from mirror.model import RepositoryKey

KEY_OF_PUBLIC = RepositoryKey(uuid="id:1", full_name="P/s")


def readable(path: str, *, strangers: Any) -> Responder:
    """Answer a path with a page of one public repository, with a credential or to all callers."""

    def respond(request: httpx.Request) -> httpx.Response:
        if "authorization" not in request.headers:
            return answer(*strangers) if isinstance(strangers, tuple) else answer(strangers)
        return paged(PUBLIC) if request.url.path.endswith(path) else answer(PUBLIC)

    return respond


@pytest.mark.parametrize(
    ("strangers", "is_private"),
    [
        (PUBLIC, False),
        ((PERMISSION, 401), True),
        (({}, 403), True),
        (({}, 404), True),
        (({}, 503), True),
        ("<html>log in</html>", True),
        (PUBLIC | {"id": 2}, True),
    ],
)
def test_only_repositories_shown_to_strangers_are_public(strangers: Any, is_private: bool) -> None:
    """The flag alone is not trusted, because public access may be off for the whole server."""
    ours = connected(readable("/repos", strangers=strangers), credential="t", workspaces=("P",))
    for _ in range(2):
        assert [row.is_private for row in ours.upstream.fetch_repositories("P", "created", None).rows] == [
            is_private
        ]
    assert ours.upstream.fetch_repository(KEY_OF_PUBLIC).is_private == is_private


def test_one_anonymous_listing_decides_what_is_public() -> None:
    """One request for each listing, and none without a public flag."""
    ours = connected(
        paged(PUBLIC, isLastPage=False, nextPageStart=1),
        answer(PUBLIC),
        paged(PUBLIC | {"id": 2}),
        credential="t",
    )
    first = ours.upstream.fetch_repositories("P", "created", None)
    ours.upstream.fetch_repositories("P", "created", first.next)
    assert ["authorization" in asked.headers for asked in ours.server.asked] == [True, False, True]
    hidden = connected(paged(PUBLIC | {"public": False}), credential="t")
    hidden.upstream.fetch_repositories("P", "created", None)
    assert len(hidden.server.asked) == 1


@pytest.mark.parametrize(
    ("answers", "are_private"),
    [
        ([answer({}, 404), answer(PUBLIC | {"id": 2})], False),  # the first has another name since
        ([answer({}, 404), answer({}, 401), answer({}, 401)], True),
    ],
)
def test_one_refused_repository_does_not_make_the_others_private(
    answers: list[httpx.Response], are_private: bool
) -> None:
    """Others are requested: up to three refusals say that strangers see none."""
    rows = [PUBLIC | {"id": number} for number in (1, 2, 3, 4)]
    ours = connected(paged(*rows), *answers, credential="t")
    page = ours.upstream.fetch_repositories("P", "created", None)
    assert {row.is_private for row in page.rows} == {are_private}
    assert len(ours.server.asked) == 1 + len(answers)


def listed(upstream: Any) -> Any:
    """Read a row of the listing."""
    return upstream.fetch_repositories("P", "created", None).rows[0]


def requested(upstream: Any) -> Any:
    """Read the same row by itself."""
    return upstream.fetch_repository(KEY_OF_PUBLIC)


FIRST_ANSWERS = [(listed, paged(PUBLIC)), (requested, answer(PUBLIC))]


@pytest.mark.parametrize("shown", [(PUBLIC,), ()], ids=["shown", "hidden"])
@pytest.mark.parametrize(("read", "first"), FIRST_ANSWERS)
def test_a_broken_repository_makes_nothing_private(
    read: Callable[[Any], Any], first: httpx.Response, shown: tuple[Any, ...]
) -> None:
    """If it is the only public one, the list that strangers get decides."""
    ours = connected(first, *[answer(b"", 500)] * 2, paged(*shown), credential="t")
    assert read(ours.upstream).is_private == (not shown)
    assert ["authorization" in asked.headers for asked in ours.server.asked] == [True, False, False, False]


@pytest.mark.parametrize(("read", "first"), FIRST_ANSWERS)
def test_a_server_that_goes_down_meanwhile_makes_nothing_private(
    read: Callable[[Any], Any], first: httpx.Response
) -> None:
    """A proxy answers in its place; strangers would lose the history of what is public."""
    asked = iter([first])
    ours = connected(lambda _: next(asked, answer(b"", 503)), credential="t")
    with pytest.raises(UpstreamBusy, match="503"):
        read(ours.upstream)
