"""The console that commands print on; apart from `main`, because rich is slow to import."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mirror.cli.main import plain


class CleanConsole(Console):
    """A terminal that shows control characters in texts of others as escapes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and clean the text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))

    def on_broken_pipe(self) -> None:
        """Raise what `main` handles: it is no error."""
        raise BrokenPipeError
