"""The query parameters of API 2.0: `sort` and `q`, `page` and `pagelen`, `fields`.

Sorting and filtering work on the numbers of repositories, and build a row only where they must.
"""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from mirror.sandbox.exchange import HttpError, Request, error
from mirror.sandbox.model import Principal, SandboxRef, SandboxRepository, SandboxWorkspace, micros, pick
from mirror.sandbox.world import NUMBER_BITS, SORTS, World

T = TypeVar("T")

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
    """A query that cannot be parsed; answered 400."""


@dataclass(frozen=True, slots=True)
class QueryCondition:
    """One condition of `q`: the dotted path of a field, an operator, a value.

    The value of a date is in microseconds since 1970.
    """

    field: str
    operator: str
    value: Any

    def holds(self, value: Any) -> bool:
        """Return whether a value of the field meets the condition."""
        try:
            return _OPERATORS[self.operator](value, self.value)
        except TypeError:
            return False


def parse(text: str) -> list[QueryCondition]:
    """Parse a query; raises BadQuery."""
    found, position, more = [], 0, True
    while more:
        match = _COMPARISON.match(text, position)
        if match is None:
            raise BadQuery(f"Invalid query: {text[position:]!r} is not a comparison")
        found.append(_comparison(match["field"].lower(), match["operator"], match["value"]))
        position, more = match.end(), match["more"] is not None
    return found


def dig(item: Any, path: str) -> Any:
    """Return the value at a dotted path of an object, None if there is none."""
    for part in path.split("."):
        item = item.get(part) if isinstance(item, dict) else None
    return item


def date(text: str) -> int:
    """Parse a date with or without time, fraction and offset; the default offset is UTC."""
    try:
        # A "+" that was not escaped in a URL arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise BadQuery(f"Invalid query: {text!r} is not a date") from None
    return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _comparison(field: str, sign: str, value: str) -> QueryCondition:
    text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    if field in _DATES:
        return QueryCondition(field, sign, date(text))
    bare = {"true": True, "false": False, "null": None}
    if not value.startswith('"') and value.lower() in bare:
        return QueryCondition(field, sign, bare[value.lower()])
    return QueryCondition(field, sign, int(text) if not value.startswith('"') and text.isdecimal() else text)


_QUICK = {"created_on", "updated_on"}


def sort_key(parameters: dict[str, str], known: Iterable[str], default: str) -> tuple[str, bool]:
    """Parse `sort`; return the field, and whether it is descending."""
    text = parameters.get("sort") or default
    field, descending = text.removeprefix("-"), text.startswith("-")
    if field not in known:
        raise HttpError(error(400, f"Invalid sort: {text}"))
    return field, descending


def comparisons(parameters: dict[str, str]) -> list[QueryCondition]:
    """Parse `q`."""
    try:
        return parse(parameters["q"]) if parameters.get("q") else []
    except BadQuery as bad:
        raise HttpError(error(400, str(bad))) from None


def repositories(
    world: World, workspace: SandboxWorkspace, caller: Principal, parameters: dict[str, str]
) -> tuple[Sequence[int], bool]:
    """Return the numbers of the selected repositories in ascending order, and whether to reverse it."""
    field, descending = sort_key(parameters, SORTS, "created_on")
    order = world.order(workspace, field, caller)
    wanted = comparisons(parameters)
    if not wanted:
        return cast("Sequence[int]", order), descending
    quick = [each for each in wanted if each.field in _QUICK and each.operator in {">", ">=", "<", "<="}]
    numbers: Sequence[int] = (
        _between(world, workspace, caller, quick) if quick else cast("Sequence[int]", order)
    )
    slow = [each for each in wanted if each not in quick[:1]]
    if slow:
        rows = ((number, world.get(number)) for number in numbers)
        numbers = [number for number, row in rows if row is not None and _holds(slow, _facts(row))]
    return order.sort(numbers), descending


def refs(rows: Sequence[SandboxRef], parameters: dict[str, str]) -> Sequence[SandboxRef]:
    """Return the selected branches and tags, sorted."""
    wanted = comparisons(parameters)
    if wanted:
        rows = [
            ref
            for ref in rows
            if _holds(wanted, {"name": ref.name, "target": {"hash": ref.target, "date": ref.date}})
        ]
    if not parameters.get("sort"):
        return rows
    field, descending = sort_key(parameters, ("name", "target.date"), "name")
    if field == "name":
        return sorted(rows, key=lambda ref: _natural(ref.name), reverse=descending)
    return sorted(rows, key=lambda ref: ref.date, reverse=descending)


def _between(
    world: World, workspace: SandboxWorkspace, caller: Principal, quick: list[QueryCondition]
) -> Sequence[int]:
    """Return the numbers that meet the first comparison of a date: a slice of the order by that date."""
    first = quick[0]
    order = world.order(workspace, first.field, caller)
    bound = first.value + (first.operator in {">", "<="})
    position = order.position(bound << NUMBER_BITS)
    return order[position:] if first.operator.startswith(">") else order[:position]


def _holds(wanted: list[QueryCondition], facts: dict[str, Any]) -> bool:
    for each in wanted:
        if each.field.split(".")[0] not in facts:
            raise HttpError(error(400, f"Invalid query: no field {each.field}"))
    return all(each.holds(dig(facts, each.field)) for each in wanted)


def _facts(row: SandboxRepository) -> dict[str, Any]:
    return {
        **pick(row, "uuid name slug full_name description language scm size is_private has_issues has_wiki"),
        "project": {"key": row.project},
        "parent": row.parent,
        "created_on": row.created,
        "updated_on": row.updated,
    }


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key by which v10 follows v9."""
    parts, digits = [], ""
    for letter in [*name.lower(), ""]:
        if letter.isdecimal():
            digits += letter
            continue
        if digits:
            parts.append((False, int(digits), ""))
            digits = ""
        parts.append((True, 0, letter))
    return parts


# `page` and `pagelen`

DEFAULT_LENGTH = 10
LONGEST = 100
_OPAQUE = "8x"  # with odd pages, `page` is this prefix and a position in hex: no number for clients


@dataclass(frozen=True, slots=True)
class Style:
    """The form of pages. `prefix` is the path that their links begin with.

    `odd` pages do what the API allows and Bitbucket was seen to do: an opaque `page` in `next`, no `page`,
    no `size`, fewer rows than asked for before the last page, another `pagelen`, and `next: ""` on the last.
    """

    prefix: str = "/2.0"
    odd: bool = False


def page_of(
    request: Request,
    rows: Sequence[T],
    shape: Callable[[T], Any],
    *,
    style: Style,
    total: bool = True,
    descending: bool = False,
) -> dict[str, Any]:
    """Return the requested page of `rows`, shaping only the rows of that page.

    `total` adds the `size`; `descending` reverses the order of `rows`.
    """
    parameters = request.parameters
    length = min(LONGEST, _positive(parameters, "pagelen", DEFAULT_LENGTH))
    if style.odd:
        start = _place(parameters)
        stop = start + max(1, length - 1)
        shaped = [shape(row) for row in _cut(rows, start, stop, descending=descending)]
        more = _link(request, style.prefix, parameters, f"{_OPAQUE}{stop:x}") if stop < len(rows) else ""
        return {"pagelen": DEFAULT_LENGTH, "values": shaped, "next": more}
    page = _positive(parameters, "page", 1)
    start, stop = (page - 1) * length, page * length
    shaped = [shape(row) for row in _cut(rows, start, stop, descending=descending)]
    answer: dict[str, Any] = {"pagelen": length, "page": page, "values": shaped}
    if total:
        answer["size"] = len(rows)
    if stop < len(rows):
        answer["next"] = _link(request, style.prefix, parameters, str(page + 1))
    if page > 1:
        answer["previous"] = _link(request, style.prefix, parameters, str(page - 1))
    return answer


def _cut(rows: Sequence[T], start: int, stop: int, *, descending: bool) -> Sequence[T]:
    count = len(rows)
    return rows[max(0, count - stop) : max(0, count - start)][::-1] if descending else rows[start:stop]


def _positive(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise HttpError(error(400, f"Invalid {name}"))
    return int(text)


def _place(parameters: dict[str, str]) -> int:
    text = parameters.get("page", f"{_OPAQUE}0")
    try:
        return int(text.removeprefix(_OPAQUE), 16)
    except ValueError:
        raise HttpError(error(400, "Invalid page")) from None


def _link(request: Request, prefix: str, parameters: dict[str, str], page: str) -> str:
    rest = request.path.partition("/2.0/")[2]
    return f"{request.origin}{prefix}/{rest}?{urlencode({**parameters, 'page': page})}"


# `fields`

FieldTree = dict[str, "FieldTree"]


def select(value: Any, fields: str) -> Any:
    """Return the parts of a value that the parameter `fields` selects."""
    paths = [path.strip() for path in fields.split(",") if path.strip()]
    wanted = _tree(path for path in paths if path[0] not in "+-")
    if wanted:
        value = _keep(value, wanted)
    unwanted = _tree(path[1:] for path in paths if path[0] == "-")
    return _drop(value, unwanted) if unwanted else value


def _tree(paths: Any) -> FieldTree:
    tree: FieldTree = {}
    for path in paths:
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    return tree


def _keep(value: Any, tree: FieldTree) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_keep(item, tree) for item in value]
    if isinstance(value, dict):
        return {key: _keep(value[key], tree[key]) for key in tree if key in value}
    return value


def _drop(value: Any, tree: FieldTree) -> Any:
    if isinstance(value, list):
        return [_drop(item, tree) for item in value]
    if isinstance(value, dict):
        return {
            key: _drop(item, tree[key]) if key in tree else item
            for key, item in value.items()
            if key not in tree or tree[key]
        }
    return value
