"""The results of `mirror search` as a table."""

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mirror.cli.main import out, plain
from mirror.queries.rows import RepositoryRow
from mirror.queries.search import FoundRepositories
from mirror.search import highlight_ranges

_GAP = 2
"""Columns of the terminal between two cells."""
_SHORTEST_ABOUT, _LONGEST_ABOUT = 20, 80
"""The least and the most columns for a description."""


def print_found(found: FoundRepositories) -> None:
    """Print the number of matches, and a page of them as a table."""
    query = found.query
    if found.count == 0:
        out().print(f"No repository matches {escape(repr(query))}" if query else "No repository matches")
        return
    how = f", corrected to {', '.join(found.corrected)}" if found.fuzzy else ""
    how += f", {found.described:,} of them by their description" if found.described else ""
    shown = len(found.repositories)
    out().print(
        Text(f"{found.count:,} found{how}" + (f", {shown} shown" if shown < found.count else "")), style="dim"
    )
    if shown:
        out().print(_results(found.repositories, found.corrected or (query,), out().width))


def _results(rows: list[RepositoryRow], needles: tuple[str, ...], width: int) -> Table:
    """Make the table of results. Names are never cut; other columns are left out on a narrow terminal."""
    table = Table(box=None, show_header=False, pad_edge=False)
    columns = [
        [_marked(row.full_name, needles) for row in rows],
        [Text(row.scm or "") for row in rows],
        [Text(" ".join(row.states)) for row in rows],
        [Text("" if row.followers_count is None else f"{row.followers_count:,}") for row in rows],
    ]
    shown = list[list[Text]]()
    for texts in columns:
        widest = max((text.cell_len for text in texts), default=0)
        if not shown or 0 < widest <= width:
            shown.append(texts)
            table.add_column(overflow="fold", min_width=min(widest, width), no_wrap=bool(shown[1:]))
            width -= widest + _GAP
    if width >= _SHORTEST_ABOUT:
        shown.append([Text(" ".join((row.description or "").split())) for row in rows])
        table.add_column(overflow="ellipsis", no_wrap=True, max_width=min(width, _LONGEST_ABOUT))
    for cells in zip(*shown, strict=True):
        table.add_row(*cells)
    return table


def _marked(full_name: str, needles: tuple[str, ...]) -> Text:
    """Highlight what matches in the slug."""
    full_name = plain(full_name)
    text = Text(full_name)
    start = full_name.find("/") + 1
    for needle in needles:
        for begin, end in highlight_ranges(full_name[start:], needle):
            text.stylize("bold yellow", start + begin, start + end)
    return text
