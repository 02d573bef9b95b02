"""The console of rich, in a file of its own because rich is slow to import."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mirror.cli.printer import plain


class CleanConsole(Console):
    """A console that escapes control characters in texts of others."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and clean the text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, which `main` handles: it is not an error."""
        raise BrokenPipeError
