"""The questions page: every stored query in words, with a field for each of its parameters."""

from datasette.utils.asgi import Response

from mirror.serve.pages.visit import Visit
from mirror.serve.queries import GROUPS

OFFERED = ("stale", "stale_branches", "without_tags", "names_under_many_owners")
"""What the home page offers: some that nearly every mirror has an answer to."""


async def questions(visit: Visit) -> Response:
    """GET /-/questions: what can be asked without writing SQL; the answers are Datasette's pages."""
    return await visit.page("mirror_questions.html", {"groups": GROUPS})
