"""API 1.0's forms: slugs and fork policies."""

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
def test_slugs_follow_bitbuckets_rules(name: str, slug: str) -> None:
    """Lower case, no quotes, dots kept, one dash for each run of other characters."""
    assert slug_of(name) == slug


@pytest.mark.parametrize("name", ["", "!!!", "日本語", "..", "'"])
def test_a_name_without_slug_characters_is_refused(name: str) -> None:
    """Nothing is left of some names."""
    assert slug_of(name) == ""


YES, NO, NONE = True, False, None


@pytest.mark.parametrize(
    ("before", "switches", "after"),
    [
        (None, (NONE, NONE, NONE), None),
        ("no_forks", (NONE, NONE, NONE), None),
        (None, (YES, NONE, NONE), "no_forks"),
        (None, (YES, NO, NO), "no_forks"),
        ("no_forks", (NO, NONE, NONE), "allow_forks"),
        ("no_public_forks", (NO, NONE, NONE), "no_public_forks"),
        ("no_public_forks", (NO, NO, NONE), "allow_forks"),
        (None, (NO, YES, NONE), "no_public_forks"),
        (None, (NONE, YES, NONE), "no_public_forks"),
        ("no_public_forks", (NONE, NO, NONE), "allow_forks"),
        ("no_forks", (NONE, YES, NONE), "no_forks"),
        ("no_forks", (NONE, NO, NONE), "no_forks"),
        ("no_forks", (NONE, NONE, NO), "no_public_forks"),
        (None, (NONE, YES, YES), "no_forks"),
        ("no_public_forks", (NONE, NONE, YES), "no_forks"),
        (None, (NONE, NO, NONE), "allow_forks"),
    ],
)
def test_fork_policies_are_read(
    before: str | None, switches: tuple[bool | None, bool | None, bool | None], after: str | None
) -> None:
    """Three switches are one policy; a missing switch keeps its value."""
    given = {name: on for name, on in zip(FORK_SWITCHES, switches, strict=True) if on is not None}
    assert fork_policy_of(given, before) == after


@pytest.mark.parametrize("switches", [(NONE, NONE), (NONE, NO), (NO, NO)])
def test_only_private_forks_may_be_allowed(switches: tuple[bool | None, bool | None]) -> None:
    """No policy forbids only private forks, so that is refused."""
    switched = zip(FORK_SWITCHES, (*switches, True), strict=True)
    given = {name: on for name, on in switched if on is not None}
    with pytest.raises(ApiError, match="no_private_forks"):
        fork_policy_of(given, "allow_forks")


def test_settings_of_a_form_are_read() -> None:
    """Only given settings; the owner is not a setting."""
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
