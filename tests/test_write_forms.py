"""What API 1.0's forms mean today: slugs and fork policies."""

import pytest

from mirror.model import RepositorySettings, slug_of
from mirror.serve.exchange import ApiError
from mirror.serve.writer import FORK_SWITCHES, fork_policy_of, settings_of


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("django-piston", "django-piston"),
        ("My Repo", "my-repo"),
        ("viper's nest", "vipers-nest"),
        ("XMLSocket.NET", "xmlsocket.net"),
        ("HELLO (ASD)", "hello-asd"),
        ("a_b", "a_b"),
        ("Größe", "gr-e"),
        ("x" * 80, "x" * 62),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    """Lower case, quotes gone, dots kept, a dash for every run of anything else."""
    assert slug_of(name) == slug


@pytest.mark.parametrize("name", ["", "!!!", "日本語", "..", "'"])
def test_no_slug(name: str) -> None:
    """Some names have nothing that an address can be made of."""
    assert slug_of(name) == ""


YES, NO, MUM = True, False, None


@pytest.mark.parametrize(
    ("before", "switches", "after"),
    [
        (None, (MUM, MUM, MUM), None),
        ("no_forks", (MUM, MUM, MUM), None),
        (None, (YES, MUM, MUM), "no_forks"),
        (None, (YES, NO, NO), "no_forks"),
        ("no_forks", (NO, MUM, MUM), "allow_forks"),
        ("no_public_forks", (NO, MUM, MUM), "no_public_forks"),
        ("no_public_forks", (NO, NO, MUM), "allow_forks"),
        (None, (NO, YES, MUM), "no_public_forks"),
        (None, (MUM, YES, MUM), "no_public_forks"),
        ("no_public_forks", (MUM, NO, MUM), "allow_forks"),
        ("no_forks", (MUM, YES, MUM), "no_forks"),
        ("no_forks", (MUM, NO, MUM), "no_forks"),
        ("no_forks", (MUM, MUM, NO), "no_public_forks"),
        (None, (MUM, YES, YES), "no_forks"),
        ("no_public_forks", (MUM, MUM, YES), "no_forks"),
        (None, (MUM, NO, MUM), "allow_forks"),
    ],
)
def test_fork_policies(
    before: str | None, switches: tuple[bool | None, bool | None, bool | None], after: str | None
) -> None:
    """Three switches of then are one policy of today; one that is not mentioned stays."""
    given = {name: on for name, on in zip(FORK_SWITCHES, switches, strict=True) if on is not None}
    assert fork_policy_of(given, before) == after


@pytest.mark.parametrize("switches", [(MUM, MUM), (MUM, NO), (NO, NO)])
def test_private_forks_alone(switches: tuple[bool | None, bool | None]) -> None:
    """Forbidding them alone has no policy: it is refused, not rounded."""
    switched = zip(FORK_SWITCHES, (*switches, True), strict=True)
    given = {name: on for name, on in switched if on is not None}
    with pytest.raises(ApiError, match="no_private_forks"):
        fork_policy_of(given, "allow_forks")


def test_settings_of_a_form() -> None:
    """The settings are those that the form gives; the owner is none of them."""
    fields = {
        "name": " N ",
        "is_private": "False",
        "description": "",
        "has_wiki": "true",
        "owner": "somebody",
    }
    settings, owner = settings_of(fields)
    assert (owner, settings) == (
        "somebody",
        RepositorySettings(name="N", is_private=False, description="", has_wiki=True),
    )
    assert settings.given() == {"name": "N", "is_private": False, "description": "", "has_wiki": True}
    assert settings.given("name", "website") == {"name": "N"}
