"""A stored query that answers a question, and the SQL that several of them share."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True):
    """A question in words and in SQL.

    :param parameters: maps the name of each parameter to its meaning. An empty value means the default.
    :param needs: the parameters that must have a value.
    """

    title: str
    description: str
    sql: str
    parameters: Mapping[str, str] = {}
    needs: tuple[str, ...] = ()

    def stored(self) -> dict[str, Any]:
        """Return the question as a stored query of Datasette, which changes it: a new one for each call."""
        meanings = "".join(f" {name.capitalize()}: {meaning}." for name, meaning in self.parameters.items())
        return {
            "title": self.title,
            "description": self.description + meanings,
            "sql": self.sql.strip(),
            "params": list(self.parameters),
            "hide_sql": True,
        }


OWNER = {"owner": "only repositories of this owner (empty: of all)"}
IS_THEIRS = "(:owner = '' or u.username = :owner collate nocase)"


def days(default: int) -> dict[str, str]:
    """Describe a parameter that is a number of days."""
    return {"days": f"number of days (empty: {default})"}


def ago(default: int) -> str:
    """Return SQL for the time `:days` days ago, in the text form of the file's times."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), {default}) || ' days')"


def age(moment: str) -> str:
    """Return SQL for how many days ago a time was."""
    return f"cast(julianday('now') - julianday({moment}) as integer)"
