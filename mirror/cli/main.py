"""The `mirror` command itself: its options, its exit codes, and the table of commands.

Exit codes: 0 done, 1 finished but some items failed, 2 usage or configuration, 3 credentials refused,
4 upstream unreachable or mirror unusable, 130 interrupted.
"""

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import click

from mirror import __version__
from mirror.cli import signals
from mirror.cli.common import LocalPath, WholeSummaries, importing, leave, silence
from mirror.cli.printer import Unfailing, plain
from mirror.config import read_config
from mirror.errors import LONGEST_MESSAGE, ConfigError, Interrupted, MirrorError, StoreError
from mirror.readable import abridged
from mirror.store.faults import damage_explained

COMMANDS = {
    "init": ("setup", "Write a commented mirror.toml to start from; never overwrites."),
    "check": (
        "status",
        "Check that everything is in place: configuration, credentials, upstreams, disk, file, service.",
    ),
    "sync": ("sync", "Bring the mirror up to date; resume an interrupted run."),
    "status": ("status", "Show counts, age, budget and failures of each upstream."),
    "verify": ("sync", "Check the file and its search index, and compare rows with the upstream."),
    "search": ("search", "Find repositories by part of their name, offline."),
    "refs": ("search", "Find branches and tags in every repository, offline."),
    "show": ("read", "Show one repository with its branches and tags, and when they were read."),
    "changes": ("read", "List changes of repositories and refs, oldest first."),
    "inventory": ("read", "List what a migration must know of each repository, by name."),
    "mcp": ("mcp", "Offer read-only tools to an editor or assistant (MCP, over stdio)."),
    "serve": ("serve", "Serve the mirror: pages, tables, SQL and APIs."),
    "schedule": ("serve", "Sync by the schedules of the configuration, until Ctrl-C."),
    "run": ("serve", "Sync by schedule and serve, in one process or in several."),
    "publish": (
        "publish",
        "Write what is public into a new file, to host anywhere; also while a sync writes.",
    ),
    "site": ("publish", "Write what is public as static files, for any web host; also while a sync writes."),
    "export": ("lake", "Export the mirror into a lake, which other programs read."),
    "lake": ("lake", "Work with a lake that many mirrors export into: merge it, make one mirror out of it."),
    "plan-split": (
        "lake",
        "Print K configurations of equal load, each for a mirror with a credential of its own.",
    ),
    "backup": ("backup", "Copy the mirror, also while a sync writes to it."),
    "restore": ("backup", "Put a copy in the place of the mirror, which is kept under another name."),
    "token": ("token", "Make, list and revoke local API tokens; the mirror keeps only their hashes."),
    "repo": ("repo", "Create, change, delete and fork repositories, upstream and in the mirror."),
    "sandbox": ("sandbox", "Serve a simulated Bitbucket, to try the mirror without an account."),
    "completions": ("setup", "Print the script that completes commands and options in a shell."),
    "man": ("setup", "Print the manual page of all commands, for section 1."),
}
"""Which file of this package holds a command, and the first sentence of its help, for lists of commands."""

SERVICES = {"mcp", "run", "sandbox", "schedule", "serve"}
"""Commands that run until they are stopped, and then have done what was asked."""

FILES = {name: file for name, (file, _) in COMMANDS.items()}


@contextmanager
def _unless_the_reader_has_gone() -> Iterator[None]:
    """Exit with 0 when the reader of the output has gone; click alone would exit with 1."""
    try:
        yield
    except BrokenPipeError:
        silence()
        raise click.exceptions.Exit(0) from None


@contextmanager
def _with_doubts_of_the_file(ctx: click.Context) -> Iterator[None]:
    """Explain an error that is a fault of this program, unless values in the mirror are the cause."""
    try:
        yield
    except (MirrorError, OSError, click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception:
        path = Path(read_config(ctx.obj).database)
        if not path.is_file():
            raise
        with damage_explained(path):
            raise


class Commands(WholeSummaries):
    """The commands; each is imported when it is called, so that all start quickly."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Parse the command line; `--help` prints already here."""
        with _unless_the_reader_has_gone():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _unless_the_reader_has_gone(), _with_doubts_of_the_file(ctx):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, and import it; from here on, signals end a service as asked."""
        if args[0] in SERVICES:
            signals.end_service_at_once(rereads=args[0] in ("run", "schedule", "serve"))
        return super().resolve_command(ctx, args)

    def sentence(self, ctx: click.Context, name: str) -> str:
        """Return the sentence without importing the command."""
        del ctx
        return COMMANDS[name][1]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which people need them."""
        del ctx
        return list(FILES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of a command."""
        del ctx
        if cmd_name not in FILES:
            return None
        with importing():
            module = importlib.import_module(f"mirror.cli.{FILES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mirror")
@click.option(
    "--config",
    "config_path",
    type=LocalPath(path_type=Path),
    metavar="FILE",
    help="The configuration. Default: mirror.toml in this folder, else the built-in sandbox.",
)
@click.pass_context
def mirror(ctx: click.Context, config_path: Path | None) -> None:
    """Keep an offline copy of Bitbucket in one SQLite file; search it, publish it, serve it.

    Without a configuration, the upstream is a built-in sandbox, so that everything can be tried at once:

    \b
        mirror sync
        mirror search django-
        mirror serve
    """
    ctx.obj = config_path


def main(arguments: list[str] | None = None) -> None:
    """Run a command; an error is one line on standard error, and decides the exit code.

    `arguments` are those after the program's name; None takes them from the command line, and the process is
    that command's until its end: it handles SIGINT and SIGTERM.
    """
    if arguments is None:
        collect_less_often()
        signals.interrupt()
        if isinstance(sys.stderr, TextIOWrapper):
            sys.stderr = Unfailing(sys.stderr)
    # Python has None for a stream that the caller has closed.
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    _show_all_characters()
    code = exit_code_of(lambda: mirror.main(args=arguments, prog_name="mirror", standalone_mode=False))
    if arguments is None:
        signals.end_at_once(code)
    if code:
        leave(code)


def collect_less_often() -> None:
    """Let the garbage collector look less often; with Python's own numbers it takes 3 % of a first sync."""
    gc.set_threshold(5_000, 20, 20)


def exit_code_of(work: Callable[[], object]) -> int:  # noqa: PLR0911 - one for each kind of error
    """Run a command, print its error in one line, and return the exit code."""
    try:
        return _finished(work)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        message = StringIO()
        error.show(message)
        print(abridged(message.getvalue(), LONGEST_MESSAGE), end="", file=sys.stderr, flush=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except BrokenPipeError:
        silence()  # the reader, such as `head`, has gone: not an error
    except MirrorError as error:
        _say(str(error))
        return error.exit_code
    except UnicodeEncodeError as error:
        _say(f"{error.object[error.start : error.end]!r} cannot be written as {error.encoding}")
        return ConfigError.exit_code
    except OSError as error:
        silence()
        _say(_text_of(error))
        return StoreError.exit_code
    except Exception:
        if signals.interrupted():
            return _interrupted()
        raise
    return 0


def _finished(work: Callable[[], object]) -> int:
    """Run a command to its end, by `leave` for instance; return the exit code."""
    code: object = 0
    try:
        work()
    except SystemExit as left:
        code = left.code
    except (MemoryError, RuntimeError, ImportError) as error:
        if limit := _reached_limit(error):
            raise MirrorError(f"{limit}; what was saved is kept; allow this process more") from error
        raise
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _reached_limit(error: Exception) -> str:
    """Return the limit of a process that an error shows; "" for any other error."""
    if isinstance(error, MemoryError) or "failed to map segment" in str(error):  # of a compiled module
        return "no memory is left (ulimit -v)"
    return "no thread can be started (ulimit -u)" if "start new thread" in str(error) else ""


def _text_of(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not error.filename:  # of os.getcwd
        return "the current folder no longer exists; change into another one"
    return f"{error.filename or 'the answer'} cannot be read or written: {error.strerror or error}"


def _interrupted() -> int:
    _say("interrupted; what was saved is kept")
    return Interrupted.exit_code


def _show_all_characters() -> None:
    """Escape characters that the encoding of a stream lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    line = plain(f"mirror: {abridged(text, LONGEST_MESSAGE)}")
    print(line.replace("\n", "\\n"), file=sys.stderr, flush=True)  # a path may have a line end
