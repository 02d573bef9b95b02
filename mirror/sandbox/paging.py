"""Pages of API 2.0: cutting them, and linking them."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from .exchange import Refused, Request, error

T = TypeVar("T")

DEFAULT_LENGTH = 10
LONGEST = 100


def page_of(
    request: Request,
    rows: Sequence[T],
    shape: Callable[[T], Any],
    *,
    prefix: str,
    total: bool = True,
    descending: bool = False,
) -> dict[str, Any]:
    """Cut the page that was asked for out of rows, and shape those rows alone."""
    parameters = request.parameters
    length = min(LONGEST, _positive(parameters, "pagelen", DEFAULT_LENGTH))
    page = _positive(parameters, "page", 1)
    start, stop = (page - 1) * length, page * length
    count = len(rows)
    if descending:
        cut: Sequence[T] = rows[max(0, count - stop) : max(0, count - start)][::-1]
    else:
        cut = rows[start:stop]
    answer: dict[str, Any] = {"pagelen": length, "page": page, "values": [shape(row) for row in cut]}
    if total:
        answer["size"] = count
    if stop < count:
        answer["next"] = _link(request, prefix, parameters, page + 1)
    if page > 1:
        answer["previous"] = _link(request, prefix, parameters, page - 1)
    return answer


def _positive(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise Refused(error(400, f"Invalid {name}"))
    return int(text)


def _link(request: Request, prefix: str, parameters: dict[str, str], page: int) -> str:
    rest = request.path.partition("/2.0/")[2]
    return f"{request.origin}{prefix}/{rest}?{urlencode({**parameters, 'page': str(page)})}"
