"""CSV that a spreadsheet can open: no cell acts as a formula, and what is unknown is empty."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
CHUNK = 1_000
"""How many rows are written at a time."""


def csv_chunks(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield the line of the columns, then the rows, CHUNK at a time.

    None is an empty cell, a boolean ``yes`` or ``no``. A text that a spreadsheet would run as a formula, as
    it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, gets an apostrophe before it.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for number, row in enumerate(rows, 1):
        writer.writerow([_cell(value) for value in row])
        if number % CHUNK == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _cell(value: Any) -> Any:
    """Quote a text that a spreadsheet would run as a formula; write flags as words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
