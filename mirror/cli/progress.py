"""How a run is followed: bars on a terminal, lines in a log."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from mirror.observe.logs import EveryMinute
from mirror.queries.progress import line_of
from mirror.store.crawl_state import Progress
from mirror.times import age_text


class TerminalProgress:
    """The progress of a run on a terminal: a bar for each phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
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
        """Begin a bar; `total` None shows movement only."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._line = what
        self._task = self._progress.add_task(what, total=total)

    def progress(self, progress: Progress) -> None:
        """Advance the bar, and show the line of the log beside it."""
        self._line = line_of(progress)
        if self._task is not None:
            self._progress.update(
                self._task, completed=progress.done, total=progress.total, description=self._line
            )

    def waiting(self, seconds: float, why: str) -> None:
        """Show the remaining seconds and the reason."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{self._line} (waiting {seconds:.0f} s: {why})")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(Text(text))


class LogProgress:
    """The progress of a run in a log: a line for each phase, and one every minute."""

    def __init__(self, console: Console, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._minute = EveryMinute(stopwatch)
        self._waits = ""

    def phase(self, what: str, total: int | None) -> None:
        """Print the phase that begins."""
        self._minute.begin()
        if total != 0:
            self._say(what + (f": {total:,}" if total is not None else ""))

    def progress(self, progress: Progress) -> None:
        """Print it, once a minute."""
        if self._minute.is_over():
            self._say(line_of(progress))

    def waiting(self, seconds: float, why: str) -> None:
        """Print the reason of a wait, once."""
        if why != self._waits:
            self._waits = why
            self._say(f"waiting {age_text(seconds)}: {why}")

    def note(self, text: str) -> None:
        """Print it."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)
