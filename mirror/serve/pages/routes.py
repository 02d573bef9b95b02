"""The addresses of the pages."""

from collections.abc import Callable
from typing import Any

from mirror.serve.pages import assets, home, login, owner, repository
from mirror.serve.pages import changes as feed
from mirror.serve.pages import changes as history
from mirror.serve.pages import home as questions
from mirror.serve.pages import search as finding
from mirror.serve.pages import status as crawl
from mirror.serve.pages.view import page

_NAMED = r"^/-/r/(?P<owner>[^/]+)/(?P<slug>[^/]+)/?$"

ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"^/$", home.home),
    (r"^/-/index(\.(?P<format>jsono?))?$", home.index),
    (rf"^{login.PATH}$", login.login),
    (assets.PATTERN, assets.asset),
    (r"^/-/search$", page(finding.results)),
    (r"^/-/search/options$", page(finding.options)),
    (r"^/-/search\.json$", page(finding.as_json)),
    (r"^/-/search\.csv$", page(finding.as_csv)),
    (_NAMED, page(repository.repository)),
    (r"^/-/r$", page(repository.repository)),
    (r"^/-/u/(?P<owner>[^/]+)/?$", page(owner.owner)),
    (r"^/-/u$", page(owner.owner)),
    (r"^/-/changes$", page(history.history)),
    (r"^/-/changes\.atom$", page(feed.feed)),
    (r"^/-/questions$", page(questions.questions)),
    (r"^/-/mirror-status$", page(crawl.status)),
]
"""Patterns and views; Datasette asks them before its own."""
