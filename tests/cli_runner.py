"""Helpers for tests of the command line: a folder with a configuration, commands as users run them."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from forked_command import IGNORED, ForkedCommand

from mirror.report import Reporter
from mirror.sandbox import RunningSandbox, Sandbox, World, running

WARNINGS = ("-Werror", *(f"-Wignore:{begin}:{kind.__name__}" for begin, kind in IGNORED.items()))
"""Options of Python: what pyproject.toml says of the warnings in tests, for the programs that they start."""


class Finished(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def finished(code: int | None, out: str, err: str) -> Finished:
    """Return how a command ended; fail if it printed a traceback."""
    assert code is not None
    assert "Traceback" not in err, err
    return Finished(code, out, err)


class BrokenReporter(Reporter):
    """A listener with a bug."""

    def phase(self, what: str, total: int | None) -> None:
        """Break."""
        raise ZeroDivisionError(what, total)


class Folder:
    """A user's folder: `mirror` is run in it as a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def configure(self, url: str, extra: str = "", serve: str = "") -> None:
        """Write a configuration with one sandbox upstream."""
        (self.path / "mirror.toml").write_text(
            f'[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "{url}"\n{extra}\n[serve]\n{serve}\n'
        )

    def command(self, *arguments: str) -> list[str]:
        """Return the words that start a command."""
        return [sys.executable, *WARNINGS, "-m", "mirror", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a command."""
        return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), **more}

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Finished:
        """Run a command to its end."""
        running = self.start(*arguments, stdin=stdin, **environment)
        out, err = running.communicate()
        return finished(running.returncode, out, err)

    def start(self, *arguments: str, stdin: str = "", **environment: str) -> ForkedCommand:
        """Start a command that may stay."""
        return ForkedCommand(arguments, self.path, self.environment(**environment), stdin)

    def run_into(self, redirected: Mapping[int, int], *arguments: str) -> int | None:
        """Run a command with files instead of some streams, by their number; return its exit code."""
        running = ForkedCommand(arguments, self.path, self.environment(), redirected=redirected)
        running.communicate()
        return running.returncode


@contextmanager
def small_sandbox(repositories: int = 60) -> Iterator[RunningSandbox]:
    """Serve a small sandbox."""
    with running(Sandbox(World(repositories, seed=1))) as served:
        yield served


@contextmanager
def started(folder: Folder, *arguments: str, **environment: str) -> Iterator[ForkedCommand]:
    """Start a command that keeps running, and end it in any case."""
    process = folder.start(*arguments, **environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def told(process: ForkedCommand, what: str) -> str:
    """Read what a process prints until a text appears; return that line."""
    lines = list[str]()
    for line in process.stderr:
        lines.append(line)
        if what in line:
            return line
    raise AssertionError(f"never said {what!r}: {''.join(lines)}")
