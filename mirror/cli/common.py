"""What commands share: their options, the configuration, the mirror to read, and where they print."""

import gc
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mirror.cli.printer import Printer, clean_console
from mirror.config import DEFAULT_FILE, Config, read_config
from mirror.errors import ConfigError
from mirror.readable import did_you_mean
from mirror.store.faults import damage_explained
from mirror.store.files import open_reader

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import Console


@contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector off what is imported here, as in `mirror.cli`."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class LocalPath(click.Path):
    """A path on this machine. An empty text, as from an unset variable, does not mean this folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the Path; raises ConfigError for an empty text and for an address."""
        text = str(value).strip()
        if not text or "://" in text:
            name = param.get_error_hint(ctx).strip("'[]") if param else "the path"
            raise ConfigError(f"{name} {f'is {text}' if text else 'is empty'}; give a path on this machine")
        return super().convert(value, param, ctx)


class WholeSummaries(click.Group):
    """A group whose `--help` shows whole first sentences, and that suggests the command that was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; an unknown one is refused, and the nearest one suggested."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            ctx.fail(f"No such command {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})")
        return super().resolve_command(ctx, args)

    def sentence(self, ctx: click.Context, name: str) -> str:
        """Return the first sentence of the help of a command."""
        command = self.get_command(ctx, name)
        return command.get_short_help_str(1000) if command else ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.sentence(ctx, name)) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete the name of a command, or an option."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a shell asks for it

        named = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=self.sentence(ctx, name)) for name in named]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def configured() -> Config:
    """Read the configuration that the command was called with; raises ConfigError."""
    return configuration_reader()()


def configuration_reader() -> Callable[[], Config]:
    """Return a function that does the same in any thread: click knows the command in its own thread only."""
    root = click.get_current_context().find_root()

    def read() -> Config:
        # When a service rereads a default file that is gone by now, the sandbox must not take its place.
        if root.obj is None and DEFAULT_FILE.exists():
            root.obj = DEFAULT_FILE
        return read_config(root.obj)

    return read


@contextmanager
def reader() -> Iterator[sqlite3.Connection]:
    """Open the configured mirror read-only; raises StoreError."""
    path = Path(configured().database)
    connection = open_reader(path)
    try:
        with damage_explained(path):
            yield connection
    finally:
        connection.close()


def out() -> Printer:
    """Return the printer of answers, on standard output."""
    return Printer()


def errors() -> "Console":
    """Return the console for progress, notes and errors: standard error."""
    return clean_console(stderr=True)


@contextmanager
def unread() -> Iterator[None]:
    """Go on without printing if the reader of the output has gone: the exit code tells more."""
    try:
        yield
    except BrokenPipeError:
        silence()


def announce(text: str) -> None:
    """Print what a service says when it has started; it also goes on if that cannot be written."""
    try:
        click.echo(text)
    except OSError:
        silence()


def leave(code: int) -> NoReturn:
    """End with an exit code."""
    raise SystemExit(code)


def silence() -> None:
    """Discard unprinted output: Python would flush it at exit, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


Option = Callable[[Any], Any]
"""What adds an option to a command."""


def options(*several: Option) -> Option:
    """Return what adds several options to a command, which its help lists in this order."""

    def add(command: Any) -> Any:
        for option in reversed(several):  # as a stack of decorators does
            command = option(command)
        return command

    return add


def number_option(
    name: str,
    text: str,
    *,
    least: int = 0,
    most: int | None = None,
    default: int | None = None,
    metavar: str = "N",
) -> Option:
    """Return what adds an option for a whole number to a command; `text` is its help."""
    return click.option(
        name,
        type=click.IntRange(least, most),
        metavar=metavar,
        default=default,
        show_default=default is not None,
        help=text,
    )


json_option: Option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
page_options = options(
    number_option("--limit", "How many to list.", default=20),
    number_option("--offset", "How many of the first to skip.", default=0),
)
"""The options that every search has."""
