"""The content security policy of Datasette's pages: scripts of templates and plugins run, and no others.

A script that stands in a template has the nonce of the answer, and with it what the hooks of plugins collect,
which templates write: `extra_body_script` and `extra_js_urls`. A script in a value has none and does not run.
"""

import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cached_property
from urllib.parse import quote, urlsplit

from jinja2 import Environment
from jinja2.ext import Extension

SHARED = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_SELF = "'self'"
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "default-src": (_SELF,),
    "script-src": (_SELF,),
    "style-src": (_SELF, "'unsafe-inline'"),
    "img-src": (_SELF, "data:"),
}
_SCRIPT = re.compile(r"<script(?=[\s>{])", re.IGNORECASE)


class PagePolicy:
    """What one answer may load."""

    def __init__(self) -> None:
        self.styles = dict[str, None]()

    @cached_property
    def nonce(self) -> str:
        """What scripts of templates are known by; made when the first one asks for it."""
        return secrets.token_urlsafe(16)

    def header(self, added: Mapping[str, tuple[str, ...]]) -> str:
        """Return the policy, with the sources that the operator added."""
        allowed = {**_ALLOWED}
        if "nonce" in self.__dict__:
            allowed["script-src"] = (*allowed["script-src"], f"'nonce-{self.nonce}'")
        allowed["style-src"] = (*allowed["style-src"], *self.styles)
        for directive, sources in added.items():
            allowed[directive] = (*allowed.get(directive, (_SELF,)), *sources)
        return "; ".join([*(" ".join((name, *sources)) for name, sources in allowed.items()), SHARED])


current_policy: ContextVar[PagePolicy | None] = ContextVar("policy", default=None)
"""The policy of the answer that is being made."""


def nonce() -> str:
    """Return the nonce of the answer that is being made."""
    policy = current_policy.get()
    return "" if policy is None else policy.nonce


def style(url: str) -> str:
    """Let the page load a stylesheet that a plugin collected; return its address."""
    policy = current_policy.get()
    parts = urlsplit(str(url))
    if policy is not None and parts.scheme in ("http", "https") and re.fullmatch(r"[\w.:-]+", parts.netloc):
        policy.styles[f"{parts.scheme}://{parts.netloc}{quote(parts.path, safe='/%~')}"] = None
    return url


class ScriptNonces(Extension):
    """Gives each script in a template the nonce of the answer; the mirror's own pages need none."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Change the source of a template."""
        del filename
        return (
            source
            if (name or "").startswith("mirror_")
            else _SCRIPT.sub('<script nonce="{{ nonce() }}"', source)
        )


def install(env: Environment) -> None:
    """Let templates use nonces."""
    env.add_extension(ScriptNonces)
    env.globals.update(nonce=nonce)
    env.filters["style"] = style
