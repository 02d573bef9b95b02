"""Several processes that answer on one port: a parent starts them, replaces one that dies, and ends them all.

The parent answers nothing. It has no thread and no open database, so that it may fork at any time: what was
imported and read before is shared by all processes, the secret that signs logins too.
"""

import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from mirror.errors import MirrorError

Ready = Callable[[], None]

END_SECONDS = 2.6
"""How long the processes may take to end; each ends by itself a little earlier. Then they are killed."""

PARENT_SECONDS = 0.5
"""How often a process looks whether its parent is still there."""

SHORTEST_LIFE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two starts of one task. They double, up to the second number, while it does not come up."""

STARTED = 128
"""Where the numbers of tasks that are up begin, among the bytes that the parent hears; others are signals."""

FAILED_TO_START = 4

log = logging.getLogger("mirror.serve")


class Task(NamedTuple):
    """What one process does until the event is set. It calls `Ready` once it works. Returns an exit code."""

    name: str
    work: Callable[[threading.Event, Ready], int]


class _Process:
    """The processes of one task, one after the other. `started`, `due`: moments of the monotonic clock."""

    def __init__(self, number: int, task: Task) -> None:
        self.number, self.task = number, task
        self.pid: int | None = None
        self.is_up = False
        self.started = self.due = 0.0
        self._pause = SHORTEST_LIFE

    def up(self) -> None:
        """Remember that it works."""
        self.is_up, self._pause = True, SHORTEST_LIFE

    def ended(self) -> None:
        """Plan the next one."""
        self.due = max(time.monotonic(), self.started + self._pause)
        if not self.is_up:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.pid, self.is_up = None, False


class Workers:
    """Runs tasks, each in a process of its own, until SIGINT or SIGTERM.

    :param ready: called once all of them work.
    :param reread: called on SIGHUP, before it is passed on to all. Without it SIGHUP is not handled.

    The first one is started alone: what stops it stops all, and is told once.
    """

    def __init__(
        self, tasks: Sequence[Task], *, ready: Ready, reread: Callable[[], None] | None = None
    ) -> None:
        self._processes = [_Process(number, task) for number, task in enumerate(tasks)]
        self._ready, self._reread = ready, reread
        self._is_ready = False
        self._handled = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
        self._handled |= {signal.SIGHUP} if reread else set()

    def run(self) -> int:
        """Run them and return the exit code: that of the one that could not start, else 0."""
        with self._told():
            try:
                return self._watch()
            finally:
                self._end()

    def _watch(self) -> int:
        self._start(self._processes[0])
        while True:
            for byte in self._heard(self._until_due()):
                if byte in (signal.SIGINT, signal.SIGTERM):
                    return 0
                if byte == signal.SIGHUP and self._reread:
                    self._reread()
                    self._signal(signal.SIGHUP)
                elif byte >= STARTED:
                    self._processes[byte - STARTED].up()
                    self._go_on()
            for process, code in self._reaped():
                if not self._is_ready:
                    return code if code > 0 else FAILED_TO_START
                log.error("%s %s; another one starts", process.task.name, _how_it_ended(code))
            self._start_due()

    def _go_on(self) -> None:
        """After the first one, start the others; once all work, tell it."""
        if self._is_ready:
            return
        for process in self._processes:
            if process.pid is None:
                self._start(process)
        if all(process.is_up for process in self._processes):
            self._is_ready = True
            self._ready()

    def _start_due(self) -> None:
        for process in self._processes:
            if self._is_ready and process.pid is None and process.due <= time.monotonic():
                self._start(process)

    def _until_due(self) -> float | None:
        """Return after how many seconds one is to be started; None if all run."""
        due = [process.due for process in self._processes if process.pid is None]
        return max(0.0, min(due) - time.monotonic()) if self._is_ready and due else None

    def _start(self, process: _Process) -> None:
        """Fork; no signal is lost in between."""
        sys.stdout.flush()
        sys.stderr.flush()
        process.started, parent = time.monotonic(), os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        try:
            with warnings.catch_warnings():
                # Later Pythons warn of any thread; numpy's stop for the fork and start again.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if not pid:
                self._be(process, parent, before)
            process.pid = pid
        except OSError as error:
            if not self._is_ready:
                raise MirrorError(f"{process.task.name} cannot be started: {error.strerror}") from error
            log.warning("%s cannot be started: %s; it is tried again", process.task.name, error.strerror)
            process.ended()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be(self, process: _Process, parent: int, mask: Collection[int]) -> NoReturn:
        """Be the process of a task, to its end. Only the parent obeys Ctrl-C, and passes it on as SIGTERM."""
        code = 1
        try:
            stop = threading.Event()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            threading.Thread(target=_end_with, args=(parent, stop), daemon=True, name="parent").start()
            code = process.task.work(stop, lambda: self._tell_up(process))
        except BaseException:  # noqa: BLE001 - nothing below may return into the parent's frames
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _tell_up(self, process: _Process) -> None:
        os.write(self._tell, bytes([STARTED + process.number]))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Have a pipe that tells of signals, and of tasks that work."""
        self._hear, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        wakeup = signal.set_wakeup_fd(self._tell)
        before = {number: signal.signal(number, lambda *_: None) for number in self._handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(self._hear)
            os.close(self._tell)

    def _heard(self, seconds: float | None) -> bytes:
        """Wait for what the pipe tells."""
        readable, _, _ = select.select([self._hear], [], [], seconds)
        return os.read(self._hear, 1000) if readable else b""

    def _reaped(self) -> list[tuple[_Process, int]]:
        """Return the processes that have ended, with their exit codes; minus a signal that ended them."""
        found = list[tuple[_Process, int]]()
        for process in self._processes:
            if process.pid is None:
                continue
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                found.append((process, os.waitstatus_to_exitcode(status)))
                process.ended()
        return found

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.pid is not None:
                os.kill(process.pid, number)

    def _end(self) -> None:
        """End all; a second signal does not wait for running answers.

        A service manager may send SIGTERM to all processes by itself, so that each gets it twice.
        """
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        while any(process.pid for process in self._processes):
            left = deadline - time.monotonic()
            if left <= 0:
                self._signal(signal.SIGKILL)
            for byte in self._heard(max(0.05, left)):
                if byte in (signal.SIGINT, signal.SIGTERM):
                    deadline = time.monotonic()
            self._reaped()


def _end_with(parent: int, stop: threading.Event) -> None:
    """Stop when the parent is gone, however it ended."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    stop.set()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
