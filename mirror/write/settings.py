"""What API 1.0's forms mean in today's terms: the slug of a name, the fork policy of three switches."""

import re
from typing import Protocol

from mirror.errors import UpstreamRefused
from mirror.upstream.protocol import Settings

LONGEST_SLUG = 62
_QUOTES = re.compile("[\"'`\u2018\u2019\u201c\u201d]")
_UNUSUAL = re.compile(r"[^a-z0-9_.-]+")

_ALIKE = ("name", "scm", "is_private", "description", "website", "language", "has_issues", "has_wiki")
"""Fields that a form and settings call the same."""


class Form(Protocol):
    """A form of API 1.0, read; None is what it did not mention."""

    @property
    def no_forks(self) -> bool | None:
        """No forks at all."""

    @property
    def no_public_forks(self) -> bool | None:
        """No forks that everybody sees."""

    @property
    def no_private_forks(self) -> bool | None:
        """No forks but those that everybody sees."""


def settings_of(form: Form, policy: str | None = None) -> Settings:
    """Read a form as settings; `policy` is the fork policy until now. Raises UpstreamRefused 400."""
    alike = {name: getattr(form, name) for name in _ALIKE}
    return Settings(**alike, fork_policy=fork_policy_of(form, policy))


def fork_policy_of(form: Form, policy: str | None) -> str | None:
    """Tell the fork policy that the switches of a form make of the present one; None where none is mentioned.

    A switch that is not mentioned stays. Private forks alone cannot be forbidden: UpstreamRefused 400.
    """
    if form.no_forks is form.no_public_forks is form.no_private_forks is None:
        return None
    no_private = policy == "no_forks"
    no_public = no_private or policy == "no_public_forks"
    if form.no_forks or (form.no_forks is False and no_private):
        no_public = no_private = form.no_forks
    if form.no_public_forks is not None:
        no_public = form.no_public_forks
    if form.no_private_forks is not None and not form.no_forks:
        no_private = form.no_private_forks
    if form.no_private_forks and no_private and not no_public:
        raise UpstreamRefused(
            "no_private_forks: Bitbucket forbids all forks or the public ones, never the private ones alone",
            status=400,
        )
    return "no_forks" if no_private else "no_public_forks" if no_public else "allow_forks"


def slug_of(name: str) -> str:
    """Make the slug of a name as Bitbucket does; raises UpstreamRefused 400 where nothing is left of it.

    Slugs are lower case; quotes go, dots stay, runs of anything else become one dash.
    """
    slug = _UNUSUAL.sub("-", _QUOTES.sub("", name.lower())).strip("-")[:LONGEST_SLUG]
    if not slug.strip("."):
        raise UpstreamRefused(f"name: {name!r} has nothing that an address can be made of", status=400)
    return slug
