"""Commands as processes that are forked from one which has imported everything: they start at once.

They are processes like any other, with their own folder, environment, files and signals. Only Python has
started already: its options and variables come too late. Tests of those use `fresh_python`.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO

from mirror.cli import main
from mirror.cli.main import FILES

LAZY = (
    "mirror.search.fuzzy", "mirror.search.index.build", "mirror.search.index.update",
    "mirror.search.index.check", "mirror.search.index.refs.rebuild", "mirror.store.migrations",
    "mirror.upstream.cloud", "mirror.site.build", "mirror.background.service", "mirror.serve.plugin",
    "compiled_pages", "numpy.ma", "tenacity", "mirror.search.index.refs.verify", "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio", "encodings.idna", "encodings.utf_8_sig", "encodings.unicode_escape",
)  # fmt: skip
"""What commands import when they need it, beside the files of `mirror.cli`."""

IGNORED = {"unclosed database": ResourceWarning, "Binding": DeprecationWarning}
"""How the warnings begin that are no errors in programs that tests start; pyproject.toml says why."""


def fork_server() -> ForkServerContext:
    """Start processes from one that has imported everything, with `.Process(target=..., args=...)`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*(f"mirror.cli.{file}" for file in set(FILES.values())), *LAZY])
    return context


class ForkedCommand:
    """A `mirror` command that runs; to be used as a `subprocess.Popen` whose output is piped.

    `redirected` has files for its output or messages to go to instead, by the number of the stream.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        environment: Mapping[str, str],
        typed: str = "",
        redirected: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.args = ("mirror", *arguments)
        self.stdout, its_stdout = _pipe()
        self.stderr, its_stderr = _pipe()
        with TemporaryFile("w+", encoding="utf-8") as file:
            file.write(typed)
            file.seek(0)
            streams = [Connection(os.dup(file.fileno())), its_stdout, its_stderr]
        for number, descriptor in redirected.items():
            streams[number].close()
            streams[number] = Connection(os.dup(descriptor), readable=False)
        arguments_of_run = self.args, folder, dict(environment), streams, -1 if redirected else 1
        self._process = fork_server().Process(target=_run, args=arguments_of_run, daemon=True)
        self._process.start()
        for stream in streams:
            stream.close()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Wait for the end, and return what was not read yet; it is killed after the timeout."""
        if self.stdout.closed:
            return "", ""
        end = threading.Timer(timeout, self.kill)
        end.start()
        with ThreadPoolExecutor(1) as reader, self.stdout, self.stderr:
            said = reader.submit(self.stderr.read)
            both = self.stdout.read(), said.result()
        self._process.join()
        end.cancel()
        return both


def _pipe() -> tuple[IO[str], Connection]:
    """Make a pipe: the end to read from, and the end that goes to the new process."""
    reads, writes = os.pipe()
    return os.fdopen(reads, encoding="utf-8"), Connection(writes, readable=False)


def _run(
    arguments: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    streams: list[Connection],
    buffering: int,
) -> None:
    """Do in the new process what Python does before it calls `mirror`, and call it."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    gc.freeze()
    sys.argv = list(arguments)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=buffering)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    warnings.simplefilter("error")
    for begin, kind in IGNORED.items():
        warnings.filterwarnings("ignore", begin, kind)
    main()
