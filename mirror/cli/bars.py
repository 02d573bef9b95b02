"""Progress on a terminal: a bar for a piece of work, and one for each phase of a run."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as ProgressBars
from rich.text import Text

from mirror.cli.main import errors
from mirror.queries.crawl import line_of
from mirror.report import Reporter
from mirror.store.crawl_state import Progress
from mirror.times import age_text


@contextmanager
def progress_bar(what: str, *columns: ProgressColumn) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a bar on a terminal, and nothing elsewhere.

    Yields a function of the current step, the number of steps done, and that of all steps. `columns` follow
    the bar; by default the number of steps and the elapsed time.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    shown = columns or (MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBars(
        TextColumn("{task.description}"), BarColumn(), *shown, console=errors(), transient=True
    ) as bars:
        task = bars.add_task(what)
        yield lambda step, done, total: bars.update(task, description=step, completed=done, total=total)


class TerminalProgress(Reporter):
    """Shows the progress of a run on a terminal: a bar for each phase."""

    def __init__(self, console: Console) -> None:
        self._progress = ProgressBars(
            SpinnerColumn(), BarColumn(20), TextColumn("{task.description}"), console=console, transient=True
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, what: str, total: int | None) -> None:
        """Begin a bar; without a `total`, it only shows that something moves."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._line = what
        self._task = self._progress.add_task(what, total=total)

    def progress(self, progress: Progress) -> None:
        """Advance the bar, with the progress as text beside it."""
        self._line = line_of(progress)
        if self._task is not None:
            self._progress.update(
                self._task, completed=progress.done, total=progress.total, description=self._line
            )

    def waiting(self, seconds: float, why: str) -> None:
        """Show the remaining time and the reason."""
        if self._task is not None:
            self._progress.update(
                self._task, description=f"{self._line} (waiting {age_text(seconds)}: {why})"
            )

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(Text(text))
