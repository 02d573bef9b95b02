"""Pages of API 2.0: cutting them, and linking them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from .exchange import Refused, Request, error

T = TypeVar("T")

DEFAULT_LENGTH = 10
LONGEST = 100
_MARK = "8x"  # the page of an odd link is a mark and a place, which is nobody's business


@dataclass(frozen=True, slots=True)
class Style:
    """How pages look: `prefix` is the path of their links.

    The odd ones are all allowed, and were seen: a `next` that counts nothing, no `page` and no `size`, fewer
    rows than asked for and more to come, another `pagelen` than was asked, and `next: ""` at the end.
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
    """Cut the page that was asked for out of rows, and shape those rows alone."""
    parameters = request.parameters
    length = min(LONGEST, _positive(parameters, "pagelen", DEFAULT_LENGTH))
    if style.odd:
        start = _place(parameters)
        stop = start + max(1, length - 1)
        shaped = [shape(row) for row in _cut(rows, start, stop, descending=descending)]
        more = _link(request, style.prefix, parameters, f"{_MARK}{stop:x}") if stop < len(rows) else ""
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
        raise Refused(error(400, f"Invalid {name}"))
    return int(text)


def _place(parameters: dict[str, str]) -> int:
    text = parameters.get("page", f"{_MARK}0")
    try:
        return int(text.removeprefix(_MARK), 16)
    except ValueError:
        raise Refused(error(400, "Invalid page")) from None


def _link(request: Request, prefix: str, parameters: dict[str, str], page: str) -> str:
    rest = request.path.partition("/2.0/")[2]
    return f"{request.origin}{prefix}/{rest}?{urlencode({**parameters, 'page': page})}"
