"""Stored queries: the questions that people ask first, in groups, each group in a room of its own.

Gone repositories are left out, but where they are what is asked for. Every query is bounded by an index or
by its limit; those that have to look at every row say ``not indexed``, since reading the rows in their own
order is what a disk does best.
"""

from typing import Any

from mirror.serve.queries import cleaning, crawling, happened, names, tags
from mirror.serve.queries.question import Question

GROUPS: dict[str, dict[str, Question]] = {
    "Cleaning up": cleaning.QUESTIONS,
    "Tags and releases": tags.QUESTIONS,
    "Names, owners, languages": names.QUESTIONS,
    "What happened": happened.QUESTIONS,
    "The crawl": crawling.QUESTIONS,
}
"""Every question by what it is about."""

QUERIES = {name: question for group in GROUPS.values() for name, question in group.items()}
"""Every question by its name in addresses."""


def stored_queries() -> dict[str, dict[str, Any]]:
    """Return the queries as Datasette knows them."""
    return {name: question.stored() for name, question in QUERIES.items()}
