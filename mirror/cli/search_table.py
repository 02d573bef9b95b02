"""The results of `mirror search` for people."""

from typing import Any

from mirror.cli.main import out
from mirror.cli.printer import Grid, Marked, columns_of, plain
from mirror.queries.rows import RepositoryRow
from mirror.queries.search import FoundRepositories
from mirror.search import highlight_ranges

_GAP = 2
"""Columns of the terminal between two cells."""
_SHORTEST_ABOUT, _LONGEST_ABOUT = 20, 80
"""The least and the most columns for a description."""


def print_found(found: FoundRepositories, *, filtered: bool) -> None:
    """Print the number of matches, and a page of them as a table; `filtered` if options exclude some."""
    query, printer = found.query, out()
    if found.count == 0:
        what = f" {query!r}" if query else ""
        printer.say(f"No repository matches{what}{' with these filters' if filtered else ''}")
        return
    how = f", corrected to {', '.join(found.corrected)}" if found.fuzzy else ""
    how += f", {found.described:,} of them by their description" if found.described else ""
    shown = len(found.repositories)
    some = f", {shown} shown" if shown < found.count else ""
    printer.say((f"{found.count:,} found{how}{some}", "dim"))
    if shown:
        printer.table(_results(found.repositories, found.corrected or (query,), printer.width))


def _results(rows: list[RepositoryRow], needles: tuple[str, ...], width: int) -> Grid:
    """Make the table of results. Names are never cut; other columns are left out on a narrow terminal."""
    columns = [
        [_marked(row.full_name, needles) for row in rows],
        [Marked(row.scm or "") for row in rows],
        [Marked(" ".join(row.states)) for row in rows],
        [Marked("" if row.followers_count is None else f"{row.followers_count:,}") for row in rows],
    ]
    shown, layouts = list[list[Marked]](), list[dict[str, Any]]()
    for cells in columns:
        widest = max(columns_of(cell.text) for cell in cells)
        if not shown or 0 < widest <= width:
            shown.append(cells)
            layouts.append({"overflow": "fold", "min_width": min(widest, width), "no_wrap": bool(shown[1:])})
            width -= widest + _GAP
    if width >= _SHORTEST_ABOUT:
        shown.append([Marked(" ".join((row.description or "").split())) for row in rows])
        layouts.append({"overflow": "ellipsis", "no_wrap": True, "max_width": min(width, _LONGEST_ABOUT)})
    table = Grid(*layouts)
    for row in zip(*shown, strict=True):
        table.add(*row)
    return table


def _marked(full_name: str, needles: tuple[str, ...]) -> Marked:
    """Highlight what matches in the slug."""
    full_name = plain(full_name)
    start = full_name.find("/") + 1
    return Marked(
        full_name,
        [
            (start + begin, start + end)
            for needle in needles
            for begin, end in highlight_ranges(full_name[start:], needle)
        ],
    )
