"""The `q` parameter of API 2.0: comparisons joined by AND, as far as repositories and refs need it."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .model import micros

_COMPARISON = re.compile(
    r"""\s*(?P<field>[a-z_.]+)\s*(?P<operator>>=|<=|!=|!~|=|>|<|~)\s*
        (?P<value>"(?:[^"\\]|\\.)*"|[^\s"()]+)\s*(?:(?P<more>AND)\b|$)""",
    re.IGNORECASE | re.VERBOSE,
)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "!=": operator.ne,
    "~": lambda text, part: part.lower() in str(text or "").lower(),
    "!~": lambda text, part: part.lower() not in str(text or "").lower(),
}
_DATES = {"created_on", "updated_on", "target.date"}


class BadQuery(ValueError):
    """A query that cannot be understood: 400."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition: a field by its dotted path, an operator, and what to compare with.

    Dates are compared as integers (microseconds), everything else as it is.
    """

    field: str
    operator: str
    value: Any

    @property
    def is_date(self) -> bool:
        """Tell whether the value is a time in microseconds."""
        return self.field in _DATES

    def holds(self, value: Any) -> bool:
        """Compare a value of the field."""
        try:
            return _OPERATORS[self.operator](value, self.value)
        except TypeError:
            return False


def parse(text: str) -> list[Comparison]:
    """Read a query; BadQuery says what is wrong with it."""
    found, place, more = [], 0, True
    while more:
        match = _COMPARISON.match(text, place)
        if match is None:
            raise BadQuery(f"Invalid query: {text[place:]!r} is not a comparison")
        found.append(_comparison(match["field"].lower(), match["operator"], match["value"]))
        place, more = match.end(), match["more"] is not None
    return found


def dig(item: Any, path: str) -> Any:
    """Follow a dotted path into an object; None where it ends early."""
    for part in path.split("."):
        item = item.get(part) if isinstance(item, dict) else None
    return item


def date(text: str) -> int:
    """Read a date with or without time, fraction and offset; without an offset it is UTC."""
    try:
        # A "+" that was not escaped in a URL arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise BadQuery(f"Invalid query: {text!r} is not a date") from None
    return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _comparison(field: str, sign: str, value: str) -> Comparison:
    text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    if field in _DATES:
        return Comparison(field, sign, date(text))
    bare = {"true": True, "false": False, "null": None}
    if not value.startswith('"') and value.lower() in bare:
        return Comparison(field, sign, bare[value.lower()])
    return Comparison(field, sign, int(text) if not value.startswith('"') and text.isdecimal() else text)
