"""Pages of this API: `start` counts rows, `limit` is the number of rows; pages have no total."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from mirror.queries.rows import fetch
from mirror.queries.sources import Source
from mirror.serve.datacenter.edge import DataCenterRequest, refused
from mirror.serve.exchange import Answer, Json, number_in

Row = TypeVar("Row")

DEFAULT_LIMIT = 25
MOST = 1000
LAST_START = 2**31 - 1
LONGEST_PART = 1000


class Window(NamedTuple):
    """Which rows are asked for."""

    start: int
    limit: int


class Filter:
    """Conditions on the rows of a listing, with their parameters."""

    def __init__(self) -> None:
        self.sql = list[str]()
        self.values = dict[str, Any]()

    def containing(self, name: str, text: str, *columns: str) -> None:
        """Keep rows in which one of some columns contains a text, in any case; "" keeps all of them.

        LIKE knows the case of ASCII alone. Raises ApiError 400 for a text that is too long.
        """
        if not text:
            return
        if len(text) > LONGEST_PART:
            raise refused(400, f"{name} has more than {LONGEST_PART} characters.", context=name)
        folded = text.casefold()
        plain = folded.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        self.values |= {name: f"%{plain}%", f"{name}_folded": folded}
        held = (
            f"({column} LIKE :{name} ESCAPE '\\' OR "
            f"({column} GLOB '*[^ -~]*' AND mirror_contains({column}, :{name}_folded)))"
            for column in columns
        )
        self.sql.append(f"({' OR '.join(held)})")

    def equal(self, column: str, value: int | None) -> None:
        """Keep rows whose column has a value; None keeps all of them."""
        if value is not None:
            self.sql.append(f"{column} = {value:d}")


def window_of(asked: DataCenterRequest) -> Window:
    """Read `start` and `limit`; raises ApiError 400."""
    return Window(
        _number(asked, "start", 0, least=0), min(_number(asked, "limit", DEFAULT_LIMIT, least=1), MOST)
    )


def _number(asked: DataCenterRequest, name: str, default: int, *, least: int) -> int:
    text = asked.parameters.get(name, "")
    number = number_in(text, digits=10) if text else default
    if number is None or not least <= number <= LAST_START:
        raise refused(400, f"{name} is a number from {least} to {LAST_START}.", context=name)
    return number


def read_rows(
    connection: sqlite3.Connection, source: Source, window: Window, order: str, kept: Filter | None = None
) -> list[Any]:
    """Read the rows of a page, and one more if there is a next one."""
    kept = kept or Filter()
    values: Mapping[str, Any] = {
        **source.values,
        **kept.values,
        "window_start": window.start,
        "window_limit": window.limit + 1,
    }
    return fetch(
        connection,
        f"""SELECT {source.columns} FROM {source.table} WHERE {" AND ".join([source.where, *kept.sql])}
            ORDER BY {order} LIMIT :window_limit OFFSET :window_start""",
        values,
    )


def page(
    rows: Sequence[Row],
    window: Window,
    shape: Callable[[Row], Json],
    synced_at: Callable[[Sequence[Row]], str | None],
) -> Answer:
    """Answer with a page of rows, which one row more makes not the last. Its `size` is that of the page."""
    shown, is_last = rows[: window.limit], len(rows) <= window.limit
    body: Json = {
        "size": len(shown),
        "limit": window.limit,
        "isLastPage": is_last,
        "values": [shape(row) for row in shown],
        "start": window.start,
    }
    if not is_last:
        body["nextPageStart"] = window.start + window.limit
    return Answer(body=body, synced_at=synced_at(shown))
