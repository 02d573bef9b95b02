"""How a run is followed in a log: a line for each phase, and one every minute."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from mirror.observe.logs import EveryMinute
from mirror.queries.progress import line_of
from mirror.store.crawl_state import Progress
from mirror.times import age_text


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
