"""A stored query that answers a question, and the SQL that several of them share."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True):
    """A question in words and in SQL; `parameters` maps the name of each to what it means.

    A parameter that is left empty means its default. `needs` names those without which there is no answer.
    """

    title: str
    description: str
    sql: str
    parameters: Mapping[str, str] = {}
    needs: tuple[str, ...] = ()

    def stored(self) -> dict[str, Any]:
        """Return it as Datasette knows stored queries; a fresh one, because Datasette writes into it."""
        told = "".join(f" {name.capitalize()}: {said}." for name, said in self.parameters.items())
        return {
            "title": self.title,
            "description": self.description + told,
            "sql": self.sql.strip(),
            "params": list(self.parameters),
            "hide_sql": True,
        }


OWNER = {"owner": "only theirs (empty: everybody's)"}
IS_THEIRS = "(:owner = '' or u.username = :owner collate nocase)"


def days(default: int) -> dict[str, str]:
    """Describe a parameter that counts days."""
    return {"days": f"how many (empty: {default})"}


def ago(default: int) -> str:
    """Say in SQL the moment that many days ago; it compares as text with the moments of the file."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), {default}) || ' days')"


def age(moment: str) -> str:
    """Say in SQL how many days ago a moment was."""
    return f"cast(julianday('now') - julianday({moment}) as integer)"
