"""Helpers for tests of the command line: a folder with a configuration, commands as users run them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mirror.sandbox import RunningSandbox, Sandbox, World, running


class Finished(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


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
        return [sys.executable, "-W", "error", "-m", "mirror", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a command."""
        return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), **more}

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> Finished:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment(**environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command that stays."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment(PYTHONUNBUFFERED="1", **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def small_sandbox(repositories: int = 60) -> Iterator[RunningSandbox]:
    """Serve a small sandbox."""
    with running(Sandbox(World(repositories, seed=1))) as served:
        yield served


@contextmanager
def started(folder: Folder, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command that stays, and end it whatever happens."""
    process = folder.start(*arguments, **environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def told(process: subprocess.Popen[str], what: str) -> str:
    """Read what a process says until it says something; return the line."""
    assert process.stderr is not None
    lines = list[str]()
    for line in process.stderr:
        lines.append(line)
        if what in line:
            return line
    raise AssertionError(f"never said {what!r}: {''.join(lines)}")
