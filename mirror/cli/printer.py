"""How answers are printed: lines, and tables without borders; and a bar for a long piece of work.

rich lays out and colours what goes to a terminal. Its import takes longer than most answers, so text that
needs no layout is written directly into files and pipes; both ways write the same.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from mirror.readable import visible

if TYPE_CHECKING:
    from rich.console import Console

NO_TERMINAL = 200
"""The width of a line, in columns, where there is no terminal."""
_GAP = "  "
_FIRST_COMBINING = "\u0300"
"""Printable characters before this one take one column of a terminal each."""


def plain(text: str) -> str:
    """Escape invisible and control characters; write a tab as a space."""
    return visible(text).replace("\t", " ")


def clean_console(**settings: Any) -> "Console":
    """Return a console of rich that escapes control characters in texts of others."""
    # slow to import
    from rich.console import Console, ConsoleOptions, RenderableType  # noqa: PLC0415
    from rich.segment import Segment  # noqa: PLC0415

    class CleanConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=plain(segment.text))

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # which `main` handles: it is not an error

    return CleanConsole(highlight=False, **settings)


class Unfailing(TextIOWrapper):
    """A stream of messages. If they cannot be written (a full disk, a reader that is gone), work goes on."""

    def __init__(self, stream: TextIOWrapper) -> None:
        super().__init__(stream.buffer, stream.encoding, stream.errors, line_buffering=True)
        self._stream = stream  # which closes the buffer when it is forgotten

    def write(self, text: str) -> int:
        """Write a text if possible."""
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is left, if possible."""
        with suppress(OSError):
            super().flush()


class Marked(NamedTuple):
    """The text of a cell, some parts of which stand out: each from one position to another."""

    text: str
    parts: Iterable[tuple[int, int]] = ()


class Grid:
    """Rows of cells. Columns are described by the parameters of `rich.table.Table.add_column`.

    Either all columns have a header, or none has.
    """

    def __init__(self, *columns: dict[str, Any]) -> None:
        self.columns = columns
        self.rows = list[Sequence[Marked]]()

    @property
    def has_header(self) -> bool:
        """Whether the columns are named."""
        return "header" in self.columns[0]

    def add(self, *cells: str | Marked) -> None:
        """Add a row."""
        self.rows.append([Marked(cell) if isinstance(cell, str) else cell for cell in cells])

    def lines(self, most: int) -> list[str] | None:
        """Lay out the rows with blanks; None if that needs rich, or lines longer than `most` columns."""
        texts = [[cell.text for cell in row] for row in self.rows]
        if self.has_header:
            texts.insert(0, [column["header"] for column in self.columns])
        if not texts:
            return []
        if not all(_is_narrow(text) for row in texts for text in row):
            return None
        filled = list[list[str]]()
        for cells, layout in zip(zip(*texts, strict=True), self.columns, strict=True):
            column = _filled(cells, layout)
            if column is None:
                return None
            filled.append(column)
        lines = [_GAP.join(cells) for cells in zip(*filled, strict=True)]
        return [line.rstrip() for line in lines] if len(lines[0]) <= most else None


class Printer:
    """Prints on a stream; None is standard output.

    `width` is that of a line: by default the terminal's, or `NO_TERMINAL` without one.
    """

    def __init__(self, stream: TextIO | None = None, width: int | None = None) -> None:
        self._stream = stream or sys.stdout
        # These variables force colours where there is no terminal.
        forced = os.environ.keys() & {"FORCE_COLOR", "TTY_COMPATIBLE"}
        self._is_plain = not (self._stream.isatty() or forced)
        self._width = NO_TERMINAL if width is None and not self._stream.isatty() else width

    @cached_property
    def console(self) -> "Console":
        """The stream as a console of rich."""
        return clean_console(file=self._stream, width=self._width)

    @property
    def width(self) -> int:
        """The width of a line, in columns."""
        return self._width or self.console.width

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print a line of parts, each a text or a text with a style of rich; a long one is broken."""
        self._print(parts, wraps=True)

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Print a line as `say` does, however long it is."""
        self._print(parts, wraps=False)

    def _print(self, parts: Sequence[str | tuple[str, str]], *, wraps: bool) -> None:
        text = "".join(part if isinstance(part, str) else part[0] for part in parts)
        if self._is_plain and _is_narrow(text) and not (wraps and len(text) > self.width):
            print(text, file=self._stream, flush=True)
            return
        from rich.text import Text  # noqa: PLC0415 - slow to import

        self.console.print(Text.assemble(*parts), soft_wrap=not wraps)

    def table(self, table: Grid, most: int | None = None) -> None:
        """Print a table, at most `most` columns of the terminal wide."""
        most = self.width if most is None else min(most, self.width)
        lines = table.lines(most) if self._is_plain else None
        if lines is None:
            self._print_by_rich(table, most)
        elif lines:
            print("\n".join(lines), file=self._stream, flush=True)

    def _print_by_rich(self, table: Grid, most: int) -> None:
        from rich.table import Table  # noqa: PLC0415 - slow to import
        from rich.text import Text  # noqa: PLC0415

        shown = Table(box=None, show_header=table.has_header, pad_edge=False)
        for column in table.columns:  # a long name goes on in the next line, where rich would cut it
            shown.add_column(**({} if column.get("no_wrap") else {"overflow": "fold"}) | column)
        for row in table.rows:
            cells = [Text(cell.text) for cell in row]
            for text, cell in zip(cells, row, strict=True):
                for begin, end in cell.parts:
                    text.stylize("bold yellow", begin, end)
            shown.add_row(*cells)
        with self.console.capture() as captured:
            self.console.print(shown, width=most)
        for line in captured.get().splitlines():  # rich fills each line up to the width of the table
            print(line.rstrip(), file=self._stream)
        self._stream.flush()


@contextmanager
def progress_bar(what: str, *, left: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a bar on a terminal, and nothing elsewhere.

    Yields a function of the current step, the number of steps done, and that of all steps. Beside the bar are
    the steps and the elapsed time, or with `left` the remaining time.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.progress import (  # noqa: PLC0415 - slow to import
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    beside = [TimeRemainingColumn()] if left else [MofNCompleteColumn(), TimeElapsedColumn()]
    columns = TextColumn("{task.description}"), BarColumn(), *beside
    with Progress(*columns, console=clean_console(stderr=True), transient=True) as bars:
        task = bars.add_task(what)
        yield lambda step, done, total: bars.update(task, description=step, completed=done, total=total)


def columns_of(text: str) -> int:
    """Return the width of a text on a terminal, in columns."""
    if _is_narrow(text):
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    return cell_len(text)


def cut(text: str, most: int) -> str:
    """Cut a text to `most` columns of a terminal."""
    if columns_of(text) <= most:
        return text
    if _is_narrow(text):
        return f"{text[: most - 1]}…"
    from rich.cells import set_cell_size  # noqa: PLC0415 - slow to import

    return f"{set_cell_size(text, most - 1)}…"


def _filled(cells: Sequence[str], layout: dict[str, Any]) -> list[str] | None:
    """Fill the cells of a column up to its width; None if one does not fit."""
    size = max(*map(len, cells), layout.get("min_width", 0))
    most = layout.get("max_width", size)
    if size > most:
        if layout.get("overflow") != "ellipsis":
            return None
        cells = [cut(text, most) for text in cells]
    width = min(size, most)
    if layout.get("justify") == "right":
        return [text.rstrip().rjust(width) for text in cells]  # rich strips them, too
    return [text.ljust(width) for text in cells]


def _is_narrow(text: str) -> bool:
    """Return whether each character takes one column, and none must be escaped."""
    return text.isprintable() and max(text, default="") < _FIRST_COMBINING and plain(text) == text
