"""Several processes that answer on one port: a parent starts them, replaces those that die, and ends all.

All processes share what was imported and read before, including the secret that signs logins.
"""

import logging
import os
import queue
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

# Seconds that the processes get to end; each ends by itself a little earlier. Then they are killed.
END_SECONDS = 2.6

PARENT_SECONDS = 0.5  # seconds between two checks of a process that its parent still exists

# The shortest and longest time, in seconds, between two starts of a task; it doubles with each failed start.
SHORTEST_LIFE, LONGEST_PAUSE = 1.0, 30.0

# Bytes that the parent reads from its pipe: signals are below this, numbers of started tasks from here on.
STARTED = 128

FAILED_TO_START = 4

log = logging.getLogger("mirror.serve")


class Task(NamedTuple):
    """The work of one process. It returns an exit code.

    :param work: works until the event is set; calls `Ready` once it has started.
    """

    name: str
    work: Callable[[threading.Event, Ready], int]


class _Process:
    """The processes of one task, one after the other. `started`, `due`: times of the monotonic clock."""

    def __init__(self, number: int, task: Task) -> None:
        self.number, self.task = number, task
        self.pid: int | None = None
        self.is_up = False
        self.started = self.due = 0.0
        self._pause = SHORTEST_LIFE

    def up(self) -> None:
        """Note that the process has started."""
        self.is_up, self._pause = True, SHORTEST_LIFE

    def ended(self) -> None:
        """Note that the process ended, and when to start the next one."""
        self.due = max(time.monotonic(), self.started + self._pause)
        if not self.is_up:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.pid, self.is_up = None, False


class Workers:
    """Runs tasks, each in a process of its own, until SIGINT or SIGTERM.

    :param ready: called once all of them have started.
    :param reread: called on SIGHUP, before all processes get the signal. Without it, SIGHUP is not handled.
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
        """Run the tasks; return 0, or the exit code of a process that could not start."""
        with self._piped():
            try:
                return self._watch()
            finally:
                self._end()

    def _watch(self) -> int:
        self._start(self._processes[0])  # alone: an error that stops all is then reported once
        while True:
            for byte in self._received(self._until_due()):
                if byte in (signal.SIGINT, signal.SIGTERM):
                    return 0
                if byte == signal.SIGHUP and self._reread:
                    self._reread()
                    self._signal(signal.SIGHUP)
                elif byte >= STARTED:
                    self._processes[byte - STARTED].up()
                    self._start_others()
            for process, code in self._reaped():
                if not self._is_ready:
                    return code if code > 0 else FAILED_TO_START
                how = (
                    f"was ended by {signal.Signals(-code).name}"
                    if code < 0
                    else f"ended with exit code {code}"
                )
                log.error("%s %s; another one starts", process.task.name, how)
            for process in self._processes:
                if self._is_ready and process.pid is None and process.due <= time.monotonic():
                    self._start(process)

    def _start_others(self) -> None:
        """Start the other tasks after the first one. Once all have started, call `ready`."""
        if self._is_ready:
            return
        for process in self._processes:
            if process.pid is None:
                self._start(process)
        if all(process.is_up for process in self._processes):
            self._is_ready = True
            self._ready()

    def _until_due(self) -> float | None:
        """Return the seconds until a process is due to start; None if none is."""
        due = [process.due for process in self._processes if process.pid is None]
        return max(0.0, min(due) - time.monotonic()) if self._is_ready and due else None

    def _start(self, process: _Process) -> None:
        """Fork."""
        # The parent answers nothing. It has no threads and no open database, so it may fork at any time.
        sys.stdout.flush()
        sys.stderr.flush()
        process.started, parent = time.monotonic(), os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)  # so that none is lost
        try:
            with warnings.catch_warnings():
                # Later Pythons warn if there are threads. Those of numpy stop for the fork and start again.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if not pid:
                self._run_task(process, parent, before)
            process.pid = pid
        except OSError as error:
            if not self._is_ready:
                raise MirrorError(f"{process.task.name} cannot be started: {error.strerror}") from error
            log.warning("%s cannot be started: %s; it is tried again", process.task.name, error.strerror)
            process.ended()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run_task(self, process: _Process, parent: int, mask: Collection[int]) -> NoReturn:
        """Run a task in this process."""
        code = 1
        try:
            stop = threading.Event()
            signal.set_wakeup_fd(-1)
            set_stop = set_by_signals(stop)
            signal.signal(signal.SIGTERM, lambda *_: set_stop())
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and sends SIGTERM
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A SIGHUP waits until the task handles it.
            signal.pthread_sigmask(signal.SIG_SETMASK, {*mask, *self._handled & {signal.SIGHUP}})
            threading.Thread(target=_end_with, args=(parent, stop), daemon=True, name="parent").start()
            code = process.task.work(stop, lambda: self._report_up(process))
        except BaseException:  # noqa: BLE001 - nothing below may return into the parent's frames
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _report_up(self, process: _Process) -> None:
        os.write(self._pipe_in, bytes([STARTED + process.number]))

    @contextmanager
    def _piped(self) -> Iterator[None]:
        """Make a pipe through which signals and started tasks are reported."""
        self._pipe_out, self._pipe_in = os.pipe()
        os.set_blocking(self._pipe_in, False)
        wakeup = signal.set_wakeup_fd(self._pipe_in)
        before = {number: signal.signal(number, lambda *_: None) for number in self._handled}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)  # a SIGHUP may wait since before the start
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(self._pipe_out)
            os.close(self._pipe_in)

    def _received(self, seconds: float | None) -> bytes:
        """Wait for bytes from the pipe."""
        readable, _, _ = select.select([self._pipe_out], [], [], seconds)
        return os.read(self._pipe_out, 1000) if readable else b""

    def _reaped(self) -> list[tuple[_Process, int]]:
        """Return the processes that have ended, with exit codes; a signal counts as a negative one."""
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
        """End all processes; a second signal does not wait for running answers."""
        self._signal(signal.SIGTERM)  # perhaps a second time: a service manager may send it to all processes
        deadline = time.monotonic() + END_SECONDS
        while any(process.pid for process in self._processes):
            left = deadline - time.monotonic()
            if left <= 0:
                self._signal(signal.SIGKILL)
            for byte in self._received(max(0.05, left)):
                if byte in (signal.SIGINT, signal.SIGTERM):
                    deadline = time.monotonic()
            self._reaped()


def set_by_signals(event: threading.Event) -> Callable[[], None]:
    """Return a function that sets an event, for handlers of signals.

    `Event.set` in a handler hangs if the signal interrupted another `set`, or a `wait`, of the same thread.
    """
    asked = queue.SimpleQueue[None]()  # its `put` may interrupt itself

    def obey() -> None:
        asked.get()
        event.set()

    threading.Thread(target=obey, daemon=True, name="stop").start()
    return lambda: asked.put(None)


def _end_with(parent: int, stop: threading.Event) -> None:
    """Stop this process when its parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    stop.set()
