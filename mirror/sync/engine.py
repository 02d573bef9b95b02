"""The engine of a crawl: several threads ask, one thread saves, in one fixed order.

The order in which steps are saved depends on the steps alone, never on which answer came first or on the
number of threads: the same crawl writes the same file at any concurrency. The steps that follow from another
one are queued `LOOKAHEAD` positions behind it, far enough that it is always saved by then.
"""

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mirror.errors import Interrupted, MirrorError, Paused, UpstreamError

T = TypeVar("T")

LOOKAHEAD = 128

MOMENT = 0.01
"""For how many seconds an answer that is there waits for each other one, to be saved together."""


class Step(Protocol):
    """One thing to ask of the upstream."""

    def ask(self) -> Any:
        """Ask, in any thread; only fetches. Raises MirrorError."""

    def save(self, answer: Any) -> "Sequence[Step]":
        """Write the answer and where to go on in one transaction; return the steps that follow from it.

        An UpstreamError raised before anything is written goes to `failed`.
        """

    def failed(self, error: MirrorError) -> "Sequence[Step]":
        """Record that there was no answer; return the steps to take instead. May raise."""


class _Task:
    """A step and, once `done`, its answer or its error."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.done = False  # set last, so no lock is needed to read the rest
        self.answer: Any = None
        self.error: BaseException | None = None


class _Workers:
    """The threads that ask. After an error that concerns the whole run they ask nothing more."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._started = 0
        self._tasks = queue.SimpleQueue[_Task | None]()
        self._done = queue.SimpleQueue[None]()
        self._over: BaseException | None = None  # why nothing is asked any more

    def put(self, task: _Task) -> None:
        """Queue a task; tasks are begun in the order of the calls."""
        if self._started < self._threads:  # a phase may have fewer tasks than threads
            self._started += 1
            threading.Thread(target=self._work, daemon=True, name="ask").start()
        self._tasks.put(task)

    def end(self) -> None:
        """Let the threads end; what has not been asked by now never is."""
        self._over = self._over or Interrupted("not asked any more")
        for _ in range(self._started):
            self._tasks.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until a task is done that no earlier call has returned for, or so many seconds."""
        with suppress(queue.Empty):
            self._done.get(timeout=seconds)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.error = self._over
            if task.error is None:
                self._ask(task)
            task.done = True
            self._done.put(None)

    def _ask(self, task: _Task) -> None:
        try:
            task.answer = task.step.ask()
        except BaseException as error:  # noqa: BLE001 - it is raised again by the thread that saves
            task.error = error
            # The other threads must not repeat a credential that was refused.
            if not isinstance(error, UpstreamError | Paused):
                self._over = self._over or error


class _Order:
    """The one order of steps: the given ones, with those that follow `LOOKAHEAD` positions behind."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._given: Iterator[Step] = iter(steps)
        self._more = True
        self._followers = deque[tuple[int, Step]]()
        self._pulled = 0

    def pull(self) -> Step | None:
        """Return the next step, or None until another one has been saved."""
        ripe = self._followers and self._followers[0][0] <= self._pulled
        if not ripe and self._more:
            step = next(self._given, None)
            if step is not None:
                self._pulled += 1
                return step
            self._more = False
        if self._followers:
            self._pulled += 1
            return self._followers.popleft()[1]
        return None

    def follow(self, position: int, steps: Sequence[Step]) -> None:
        """Queue the steps that follow from the one saved at a position."""
        self._followers.extend((position + LOOKAHEAD, step) for step in steps)


def run_steps(
    steps: Iterable[Step],
    *,
    threads: int,
    stop: threading.Event,
    tick: Callable[[], None] = lambda: None,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Take all steps and those that follow from them.

    `threads` ask at a time. At most `2 * threads` answers are under way or wait to be saved (one, with a
    single thread): that is all that a kill can lose. Those of them that are there are saved `together`.
    `stop` ends the work at once (Interrupted). `tick` is called often, also while waiting for an answer.

    A step that raises Paused ends the work once the answers under way are saved. Any other error that
    `Step.failed` does not handle ends it at once.
    """
    workers = _Workers(threads)
    try:
        most = 1 if threads == 1 else min(2 * threads, LOOKAHEAD)
        with _on_one_core():  # and so are the threads that are started in it
            _save_all(_Order(steps), workers, most=most, stop=stop, tick=tick, together=together)
    finally:
        workers.end()


@contextmanager
def _on_one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on the core where it is, if the system can (Linux).

    Only one thread at a time runs Python anyway, and the saving one lets another one run at each row that
    SQLite writes: from core to core, that takes a quarter of the time of a first sync.
    """
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    with suppress(OSError):  # a container may forbid it
        os.sched_setaffinity(0, {_this_core()})
    try:
        yield
    finally:
        with suppress(OSError):  # cores may have been taken away meanwhile
            os.sched_setaffinity(0, allowed)


def _this_core() -> int:
    """Return the number of the core that runs this thread (proc_pid_stat(5), field 39)."""
    return int(Path("/proc/thread-self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[36])


def ask_once(ask: Callable[[], T], *, stop: threading.Event, tick: Callable[[], None]) -> T:
    """Call `ask` in another thread, so that `stop` ends the wait for it; raises what it raises."""
    once = _Once(ask)
    run_steps([once], threads=1, stop=stop, tick=tick)
    answer: T = once.answer
    return answer


class _Once(Step):
    """A step that keeps its answer."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self.answer: Any = None

    def ask(self) -> Any:
        return self._ask()

    def save(self, answer: Any) -> Sequence[Step]:
        self.answer = answer
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        raise error


def _save_all(
    order: _Order,
    workers: _Workers,
    *,
    most: int,
    stop: threading.Event,
    tick: Callable[[], None],
    together: Callable[[], AbstractContextManager[None]],
) -> None:
    under_way = deque[_Task]()
    position, paused = 0, None
    while True:
        while paused is None and len(under_way) < most and (step := order.pull()) is not None:
            under_way.append(_Task(step))
            workers.put(under_way[-1])
        if not under_way:
            break
        _await(under_way, workers, most=most, stop=stop, tick=tick)
        if stop.is_set():
            raise Interrupted("stopped; the next run resumes from here")
        with together():
            while under_way and under_way[0].done:
                try:
                    order.follow(position, _save(under_way.popleft()))
                except Paused as error:  # what is under way was paid for, so it is saved first
                    paused = paused or error
                position += 1
        tick()
    if paused is not None:
        raise paused


def _await(
    under_way: Sequence[_Task],
    workers: _Workers,
    *,
    most: int,
    stop: threading.Event,
    tick: Callable[[], None],
) -> None:
    """Wait for the first answer, and a moment for half of them, which are saved by fewer statements."""
    while not under_way[0].done and not stop.is_set():
        workers.wait(0.2)  # short enough that `stop` and the progress are noticed
        tick()
    half = most // 2
    for _ in range(half if len(under_way) == most else 0):
        if not under_way[half - 1].done:
            workers.wait(MOMENT)


def _save(task: _Task) -> Sequence[Step]:
    if isinstance(task.error, MirrorError):
        return task.step.failed(task.error)
    if task.error is not None:
        raise task.error
    try:
        return task.step.save(task.answer)
    except UpstreamError as error:
        return task.step.failed(error)
