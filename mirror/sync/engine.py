"""The engine of a crawl: steps are asked in several threads and saved by one, in one fixed order.

The order in which steps are saved depends on the steps alone, never on which answer came first or on how
many threads ask: the same crawl writes the same file at any concurrency. What a step leads to takes its
place `LOOKAHEAD` positions behind it, far enough that it is always known by then.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from mirror.errors import Interrupted, MirrorError, Paused, UpstreamError

Answer = TypeVar("Answer")

LOOKAHEAD = 128


class Step(Protocol):
    """One thing to ask of the upstream."""

    def ask(self) -> Any:
        """Ask, in any thread; only fetches. Raises MirrorError."""

    def save(self, answer: Any) -> "Sequence[Step]":
        """Write the answer and where to go on in one transaction; return the steps it leads to.

        An UpstreamError raised before anything is written goes to `failed`.
        """

    def failed(self, error: MirrorError) -> "Sequence[Step]":
        """Record that the answer could not be had; return the steps to take instead. May raise."""


class _Asked:
    """A step and, once `done`, its answer or its error."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.done = threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None


class _Askers:
    """The threads that ask. An error that concerns the whole run keeps them from asking anything more."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._waiting = queue.SimpleQueue[_Asked | None]()
        self._over = threading.Event()
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True, name="ask").start()

    def put(self, asked: _Asked) -> None:
        """Have a step asked, in the order of the calls."""
        self._waiting.put(asked)

    def end(self) -> None:
        """Let the threads go; what has not been asked by now never is."""
        self._over.set()
        for _ in range(self._threads):
            self._waiting.put(None)

    def _work(self) -> None:
        while (asked := self._waiting.get()) is not None:
            if self._over.is_set():
                asked.error = Interrupted("not asked any more")
            else:
                self._ask(asked)
            asked.done.set()

    def _ask(self, asked: _Asked) -> None:
        try:
            asked.answer = asked.step.ask()
        except BaseException as error:  # noqa: BLE001 - it is raised again by the thread that saves
            asked.error = error
            # A refused credential must not be tried again and again by the other threads.
            if not isinstance(error, UpstreamError | Paused):
                self._over.set()


class _Order:
    """The one order of steps: the given ones, with follow-ups `LOOKAHEAD` positions behind their cause."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._given: Iterator[Step] = iter(steps)
        self._more = True
        self._followers = deque[tuple[int, Step]]()
        self._pulled = 0

    def pull(self) -> Step | None:
        """Return the next step, or None if there is none until another one has been saved."""
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
        """Enter the steps that the one saved at a position leads to."""
        self._followers.extend((position + LOOKAHEAD, step) for step in steps)


def work_off(
    steps: Iterable[Step], *, threads: int, stop: threading.Event, tick: Callable[[], None] = lambda: None
) -> None:
    """Take every step and every step that follows from one; `tick` is called often, also during waits.

    At most `2 * threads` answers are under way or waiting to be saved (one, with a single thread): that is
    all that a kill can lose. A step that raises Paused ends the work once the answers under way are
    saved; any other error that `failed` does not take ends it at once, as does `stop` (Interrupted).
    """
    askers = _Askers(threads)
    try:
        most = 1 if threads == 1 else min(2 * threads, LOOKAHEAD)
        _save_all(_Order(steps), askers, most=most, stop=stop, tick=tick)
    finally:
        askers.end()


def ask_apart(
    ask: Callable[[], Answer], *, stop: threading.Event, tick: Callable[[], None] = lambda: None
) -> Answer:
    """Ask one thing in a thread of its own, so that `stop` ends the wait for it; raises what it raises."""
    once = _Once(ask)
    work_off([once], threads=1, stop=stop, tick=tick)
    answer: Answer = once.answer
    return answer


class _Once(Step):
    """A question whose answer is kept as it is."""

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
    order: _Order, askers: _Askers, *, most: int, stop: threading.Event, tick: Callable[[], None]
) -> None:
    under_way = deque[_Asked]()
    position, paused = 0, None
    while True:
        while paused is None and len(under_way) < most and (step := order.pull()) is not None:
            under_way.append(_Asked(step))
            askers.put(under_way[-1])
        if not under_way:
            break
        asked = under_way.popleft()
        while not asked.done.wait(0.2):
            if stop.is_set():
                break
            tick()
        if stop.is_set():
            raise Interrupted("stopped; the place is kept, the next run goes on from here")
        try:
            order.follow(position, _saved(asked))
        except Paused as error:
            paused = paused or error
        position += 1
        tick()
    if paused is not None:
        raise paused


def _saved(asked: _Asked) -> Sequence[Step]:
    if isinstance(asked.error, MirrorError):
        return asked.step.failed(asked.error)
    if asked.error is not None:
        raise asked.error
    try:
        return asked.step.save(asked.answer)
    except UpstreamError as error:
        return asked.step.failed(error)
